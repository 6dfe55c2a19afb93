"""A model bundle on onnxruntime."""

from service.runtime.bundle import Bundle, BundleError, find_bundle, load_bundle
from service.runtime.onnx_runtime import OnnxRuntime

__all__ = ["Bundle", "BundleError", "OnnxRuntime", "find_bundle", "load_bundle"]
