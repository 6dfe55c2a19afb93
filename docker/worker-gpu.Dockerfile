# A worker on an NVIDIA GPU (driver 580 or newer, and the NVIDIA container toolkit on the host). From the repository's
# root: docker build -f docker/worker-gpu.Dockerfile -t s2spp-worker-gpu .
#
# onnxruntime-gpu is linked with CUDA 13 and loads cuDNN 9: the base image brings both. Ubuntu 24.04 has Python 3.12.
FROM nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04 AS base
RUN apt-get update && \
    apt-get install --yes --no-install-recommends python3 && \
    rm -rf /var/lib/apt/lists/*

FROM base AS build
RUN apt-get update && \
    apt-get install --yes --no-install-recommends python3-pip python3-venv && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY bundles bundles
COPY model model
COPY s2spp s2spp
COPY service service
RUN python3 -m venv --without-pip /opt/s2spp && \
    pip --python /opt/s2spp/bin/python install --no-cache-dir '.[gpu,otel]'

FROM base
RUN useradd --uid 10001 --no-create-home s2spp
COPY --from=build /opt/s2spp /opt/s2spp
# onnxruntime would send usage data to its maker.
ENV PATH=/opt/s2spp/bin:$PATH \
    ORT_DISABLE_TELEMETRY=1 \
    S2SPP_PROVIDER=cuda \
    S2SPP_HOST=0.0.0.0 \
    S2SPP_HTTP_PORT=8000 \
    S2SPP_GRPC_PORT=50051 \
    S2SPP_DATA_DIR=/tmp/s2spp
USER 10001
# 8000: health and metrics. 50051: gRPC, for gateways.
EXPOSE 8000 50051
HEALTHCHECK --interval=5s --timeout=5s --start-period=120s --retries=3 CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['S2SPP_HTTP_PORT']), timeout=4); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["s2spp"]
CMD ["worker"]
