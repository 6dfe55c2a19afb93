"""s2spp: a first frame and its mask in, the object's mask in every later frame out.

from s2spp import Client

with Client("localhost:50051") as client:
    for result in client.track(frames, first_mask):
        ...                                # result.labels: uint8 [H,W], the pixel's value is the object's id
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.client import AsyncClient, Client, Draw, Remove, TrackedFrame

__all__ = ["AsyncClient", "Client", "Draw", "Remove", "TrackedFrame"]


def __getattr__(name: str) -> Any:
    # Lazily: geometry and stubs below this package are imported by the service, which the client is part of.
    if name in __all__:
        from service import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
