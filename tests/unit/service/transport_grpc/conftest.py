from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import numpy as np
import pytest

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from service.transport.grpc import GrpcServer, start_grpc
from tests.fakes.engine import FakeEngine, indexed_png

WINDOW = 4


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def server(engine: FakeEngine) -> AsyncIterator[GrpcServer]:
    server = await start_grpc(engine, max_message_bytes=1 << 20, window=WINDOW, readiness_interval_s=0.02)
    yield server
    await server.stop(0)


@pytest.fixture
async def channel(server: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> segmentation_pb2_grpc.SegmentationAsyncStub:
    return segmentation_pb2_grpc.SegmentationStub(channel)


def raw_image(value: int = 0, height: int = 4, width: int = 6) -> pb.Image:
    data = bytes([value]) * (height * width * 3)
    return pb.Image(data=data, format=pb.IMAGE_FORMAT_RAW_RGB8, height=height, width=width)


def first_labels() -> np.ndarray:
    labels = np.zeros((4, 6), np.uint8)
    labels[1:3, 1] = 1
    labels[0, 4] = 7
    return labels


def opening() -> pb.OpenSession:
    return pb.OpenSession(frame=raw_image(), mask=pb.Image(data=indexed_png(first_labels())))


def create_request() -> pb.CreateSessionRequest:
    return pb.CreateSessionRequest(frame=opening().frame, mask=opening().mask)
