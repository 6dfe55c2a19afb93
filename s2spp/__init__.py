"""s2spp: a first frame and its mask in, the object's mask in every later frame out.

from s2spp import Client, read_frames

with Client("localhost:50051") as client:
    for result in client.track(read_frames("video.mp4"), first_mask):
        ...                                # result.labels: uint8 [H,W], the pixel's value is the object's id
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s2spp.video import read_frames
    from service.client import AsyncClient, Client, Draw, Remove, TrackedFrame
    from service.core.types import Flow, MaskFormat

# Before onnxruntime is imported anywhere: it sends Microsoft how it is used, unless it is told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "AsyncClient": "service.client",
    "Client": "service.client",
    "Draw": "service.client",
    "Flow": "service.core.types",
    "MaskFormat": "service.core.types",
    "Remove": "service.client",
    "TrackedFrame": "service.client",
    "read_frames": "s2spp.video",
}
__all__ = ["AsyncClient", "Client", "Draw", "Flow", "MaskFormat", "Remove", "TrackedFrame", "read_frames"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    # Lazily: geometry and stubs below this package are imported by the service, which the client is part of.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
