# A gateway: no model, no onnxruntime. From the repository's root: docker build -f docker/gateway.Dockerfile -t s2spp-gateway .
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY s2spp s2spp
COPY service service
# The bundles are of no use here. The package's build asks for the folder.
RUN mkdir bundles && \
    python -m venv --without-pip /opt/s2spp && \
    pip --python /opt/s2spp/bin/python install --no-cache-dir '.[gateway,otel]'

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home s2spp
COPY --from=build /opt/s2spp /opt/s2spp
ENV PATH=/opt/s2spp/bin:$PATH \
    S2SPP_HOST=0.0.0.0 \
    S2SPP_HTTP_PORT=8000 \
    S2SPP_GRPC_PORT=50051 \
    S2SPP_DATA_DIR=/tmp/s2spp
USER 10001
# 8000: REST, WebSocket, health and metrics. 50051: gRPC.
EXPOSE 8000 50051
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['S2SPP_HTTP_PORT']), timeout=4); c.request('GET', '/readyz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["s2spp"]
CMD ["gateway"]
