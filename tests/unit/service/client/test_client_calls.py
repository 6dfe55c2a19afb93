"""The unary calls of both clients: typed results, and every error class back as itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.client import AsyncClient, Client
from service.client.requests import with_port
from service.core.errors import FrameGap, InvalidImage, InvalidOption, Overloaded, S2sppError, Unavailable
from service.core.types import DrawObjects, Durability, RemoveObject, new_session_id
from service.transport.grpc import GrpcServer
from tests.fakes.engine import MODEL, FakeEngine, moved
from tests.fakes.waiting import PATIENCE_S, in_thread

LABELS = np.array([[0, 3], [3, 0]], np.uint8)
FRAME = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

Call = Callable[..., Any]


def concrete(root: type[S2sppError]) -> list[type[S2sppError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in concrete(child))]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, target: str) -> Call:
    """`await call("segment", ...)` on either client."""

    async def with_async(method: str, *arguments: Any, timeout_s: float = 30, **options: Any) -> Any:
        async with asyncio.timeout(PATIENCE_S), AsyncClient(target, timeout_s=timeout_s) as client:
            return await getattr(client, method)(*arguments, **options)

    async def with_sync(method: str, *arguments: Any, timeout_s: float = 30, **options: Any) -> Any:
        with Client(target, timeout_s=timeout_s) as client:
            return await in_thread(lambda: getattr(client, method)(*arguments, **options))

    return {"sync": with_sync, "async": with_async}[request.param]


async def test_a_session_by_hand(call: Call, engine: FakeEngine) -> None:
    opened = await call("create_session", FRAME, LABELS)
    session = opened.info.session
    assert opened.state_bytes == 1234
    assert (opened.info.height, opened.info.width, opened.info.object_ids) == (2, 2, (3,))
    assert opened.info == await engine.describe(session)

    result = await call("segment", session, 1, FRAME)
    np.testing.assert_array_equal(result.labels, moved(LABELS, 1))
    assert (result.frame_index, result.objects[0].object_id) == (1, 3)
    await call("segment", session, 2, FRAME, received_through=0)
    assert [made.received_through for made in engine.calls] == [None, 0]
    assert {made.durability for made in engine.calls} == {Durability.STRICT}
    assert engine.calls[0].frame.data == FRAME.tobytes()

    assert (await call("session", session)).next_frame == 3
    await call("delete_session", session)
    assert engine.deleted == [session]


async def test_model(call: Call) -> None:
    assert await call("model") == MODEL


@pytest.mark.parametrize("kind", [kind for kind in concrete(S2sppError) if kind is not Overloaded])
async def test_an_error_comes_back_as_its_own_class(kind: type[S2sppError], call: Call, engine: FakeEngine) -> None:
    engine.failure = kind("in words", expected=4)
    with pytest.raises(S2sppError) as caught:
        await call("session", new_session_id())
    assert type(caught.value) is kind
    assert (str(caught.value), caught.value.metadata) == ("in words", {"expected": "4"})


async def test_overload_says_when_to_come_back(call: Call, engine: FakeEngine) -> None:
    engine.failure = Overloaded("full", retry_after_s=1.5)
    with pytest.raises(Overloaded) as caught:
        await call("create_session", FRAME, LABELS)
    assert caught.value.retry_after_s == 1.5


async def test_no_server(call: Call, server: GrpcServer) -> None:
    await server.stop(0)
    with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{server.port}.*s2spp serve"):
        await call("model")


async def test_no_answer_in_time(call: Call, engine: FakeEngine) -> None:
    session = (await call("create_session", FRAME, LABELS)).info.session
    engine.hold(1)
    with pytest.raises(Unavailable, match="timeout_s"):
        await call("segment", session, 1, FRAME, timeout_s=0.2)


@pytest.mark.parametrize("frame", [FRAME.astype(np.float32), FRAME[..., 0], FRAME[..., :2], None, 7])
async def test_something_that_is_no_frame(call: Call, frame: Any) -> None:
    with pytest.raises(InvalidImage, match="RGB uint8"):
        await call("segment", new_session_id(), 1, frame)


async def test_a_senseless_jpeg_quality(call: Call) -> None:
    with pytest.raises(InvalidOption, match="1 to 100"):
        await call("create_session", FRAME, LABELS, jpeg_quality=0)


async def test_a_defect_of_the_server_is_an_error_of_the_common_base(call: Call, engine: FakeEngine) -> None:
    engine.failure = ZeroDivisionError("a defect")
    with pytest.raises(S2sppError, match="internal error"):
        await call("model")


def test_the_sdk_needs_no_part_of_the_server() -> None:
    """Only what a bare install has: in a process of its own, since this one has imported everything."""
    server_parts = "onnxruntime torch redis fastapi pydantic uvicorn safetensors"
    check = f"import sys, service.client; print(*set(sys.modules).intersection({server_parts.split()!r}))"
    command = [sys.executable, "-c", check]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[4])
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


async def test_objects_are_drawn_and_removed(call: Call, engine: FakeEngine) -> None:
    session = (await call("create_session", FRAME, LABELS)).info.session
    drawn = np.array([[5, 0], [0, 0]], np.uint8)
    info = await call("draw_objects", session, 0, FRAME, drawn)
    assert info.object_ids == (3, 5) and info.next_frame == 1
    assert (await call("remove_object", session, 0, 3)).object_ids == (5,)
    (_, index, what, durability), (_, _, removed, _) = engine.changes
    assert isinstance(what, DrawObjects) and what.frame.data == FRAME.tobytes() and what.as_object is None
    assert (index, durability, removed) == (0, Durability.STRICT, RemoveObject(3))
    with pytest.raises(FrameGap):
        await call("remove_object", session, 4, 5)
    await call("draw_objects", session, 0, FRAME, drawn, object_id=9)
    assert isinstance(again := engine.changes[-1][2], DrawObjects) and again.as_object == 9
    for senseless in (0, 256):
        with pytest.raises(InvalidOption, match="object_id is 1 to 255"):
            await call("draw_objects", session, 0, FRAME, drawn, object_id=senseless)
        with pytest.raises(InvalidOption, match="object_id is 1 to 255"):
            await call("remove_object", session, 0, senseless)


def test_a_host_without_a_port_is_meant_where_servers_listen() -> None:
    targets = ("localhost", "10.0.0.3", "localhost:1", "[::1]:1", "unix:/tmp/socket", "dns:///host:1")
    assert [with_port(target) for target in targets] == ["localhost:50051", "10.0.0.3:50051", *targets[2:]]
