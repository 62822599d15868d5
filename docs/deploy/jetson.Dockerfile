# glimmer-export on a Jetson Orin with JetPack 6.2. On the Jetson, from the top of a clone:
#     docker build -f docs/deploy/jetson.Dockerfile -t glimmer-export:jetson .
# JetPack's TensorRT belongs to the image's own Python, which the virtual environment sees.
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-libnvinfer python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY .gitignore LICENSE README.md constraints.txt constraints-cu12.txt pyproject.toml ./
COPY calibration calibration
COPY configs configs
COPY exporter exporter
COPY glimmer_export glimmer_export
COPY runtime runtime
RUN python3 -m venv --system-site-packages /opt/glimmer-export \
    && /opt/glimmer-export/bin/pip install --no-cache-dir -c constraints.txt -c constraints-cu12.txt \
        ".[gpu-cu12,serve,tools]"
WORKDIR /
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
