from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from s2spp.v1 import segmentation_pb2_grpc
from service.transport.grpc import GrpcServer, start_grpc
from tests.fakes.engine import FakeEngine

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
