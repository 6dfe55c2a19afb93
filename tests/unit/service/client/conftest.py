from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.transport.grpc import GrpcServer, start_grpc
from tests.fakes.engine import FakeEngine


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def server(engine: FakeEngine) -> AsyncIterator[GrpcServer]:
    server = await start_grpc(engine, max_message_bytes=1 << 20)
    yield server
    await server.stop(0)


@pytest.fixture
def target(server: GrpcServer) -> str:
    return f"127.0.0.1:{server.port}"
