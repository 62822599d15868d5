# glimmer-export on a CPU, x86 or ARM. From the top of a clone:
#     docker build -f docs/deploy/cpu.Dockerfile -t glimmer-export:cpu .
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY .gitignore LICENSE README.md constraints.txt pyproject.toml ./
COPY calibration calibration
COPY configs configs
COPY exporter exporter
COPY glimmer_export glimmer_export
COPY runtime runtime
RUN python3 -m venv /opt/glimmer-export \
    && /opt/glimmer-export/bin/pip install --no-cache-dir -c constraints.txt ".[cpu,serve,tools]"

FROM python:3.12-slim-bookworm
COPY --from=build /opt/glimmer-export /opt/glimmer-export
# What a library must write goes to /tmp: the root file system is meant to be read-only.
ENV HOME=/tmp PATH=/opt/glimmer-export/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import http.client; c = http.client.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["glimmer-export", "serve", "/bundle", "--store", "/store", "--host", "0.0.0.0", "--port", "8080"]
CMD ["--token-file", "/run/secrets/glimmer-token"]
