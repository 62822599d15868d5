# glimmer-export on an NVIDIA T4, or any GPU of a driver from 535 on. From the top of a clone:
#     docker build -f docs/deploy/t4.Dockerfile -t glimmer-export:t4 .
# CUDA's libraries, cuDNN and TensorRT come with the Python packages of gpu-cu12: NVIDIA's base image, which has but
# CUDA's runtime, says which driver is needed.
FROM nvidia/cuda:12.9.1-base-ubuntu24.04 AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY .gitignore LICENSE README.md constraints.txt constraints-cu12.txt pyproject.toml ./
COPY calibration calibration
COPY configs configs
COPY exporter exporter
COPY glimmer_export glimmer_export
COPY runtime runtime
RUN python3 -m venv /opt/glimmer-export \
    && /opt/glimmer-export/bin/pip install --no-cache-dir -c constraints.txt -c constraints-cu12.txt \
        ".[gpu-cu12,serve,tools]"

FROM nvidia/cuda:12.9.1-base-ubuntu24.04
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/glimmer-export /opt/glimmer-export
# What a library must write goes to /tmp, CUDA's cache of kernels among it: the root file system is meant to be read-only.
ENV CUDA_CACHE_PATH=/tmp/cuda HOME=/tmp PATH=/opt/glimmer-export/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python3", "-c", "import http.client; c = http.client.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["glimmer-export", "serve", "/bundle", "--store", "/store", "--host", "0.0.0.0", "--port", "8080"]
CMD ["--token-file", "/run/secrets/glimmer-token"]
