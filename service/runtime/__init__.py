"""A model bundle on onnxruntime."""

from service.runtime.bundle import Bundle, BundleError, find_bundle, load_bundle
from service.runtime.choose import AUTO, FLOAT, suitable
from service.runtime.device_runtime import DeviceRuntime
from service.runtime.graphs import cores
from service.runtime.onnx_runtime import OnnxRuntime
from service.runtime.stored_step import StoredStepError, check_stored_step

__all__ = [
    "AUTO",
    "FLOAT",
    "Bundle",
    "BundleError",
    "DeviceRuntime",
    "OnnxRuntime",
    "StoredStepError",
    "check_stored_step",
    "cores",
    "find_bundle",
    "load_bundle",
    "suitable",
]
