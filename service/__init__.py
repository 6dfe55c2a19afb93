"""Serving side of s2spp: sessions, frames and masks over a model bundle on onnxruntime. Never imports torch."""

import os

# Before onnxruntime is imported anywhere: it sends Microsoft how it is used, unless it is told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
