"""Training side of s2spp: networks, data, losses, metrics, trainer and export. Never imports `service`."""

import os

# Before onnxruntime is imported anywhere: it sends Microsoft how it is used, unless it is told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
