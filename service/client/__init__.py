"""The Python SDK over gRPC. A bare install of s2spp is all it needs: grpc, numpy, OpenCV and Pillow."""

from service.client.aio import AsyncClient
from service.client.images import FrameLike, MaskLike
from service.client.requests import Draw, Remove
from service.client.sync import Client
from service.client.wire import TrackedFrame

__all__ = ["AsyncClient", "Client", "Draw", "FrameLike", "MaskLike", "Remove", "TrackedFrame"]
