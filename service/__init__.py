"""Serving side of s2spp: sessions, frames and masks over a model bundle on onnxruntime. Never imports torch."""
