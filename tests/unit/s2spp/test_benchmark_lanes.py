"""Lanes tell of a server that goes away: a benchmark that waits for ever tells nothing. The bare model's steps as the
engine does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import httpx
import numpy as np
import pytest
import websockets

from s2spp.benchmark.lanes import GrpcLane, RawLane, WebSocketLane
from s2spp.benchmark.material import Material
from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc as stubs
from service.batching import BatchingQueue
from tests.fakes.runtime import FakeRuntime
from tests.fakes.waiting import PATIENCE_S


async def test_a_websocket_that_is_closed_fails_what_waits_for_an_answer() -> None:
    async def read_and_leave(connection: websockets.ServerConnection) -> None:
        await connection.send('{"session": {}}')
        await connection.recv()

    def opened(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json={"session": "s"})

    async with (
        websockets.serve(read_and_leave, "127.0.0.1", 0) as server,
        httpx.AsyncClient(transport=httpx.MockTransport(opened), base_url="http://rest") as client,
        asyncio.timeout(PATIENCE_S),
    ):
        host, port = next(iter(server.sockets)).getsockname()
        lane = WebSocketLane(f"http://{host}:{port}", client)
        await lane.open(b"frame", b"mask")
        with pytest.raises(websockets.ConnectionClosed):
            await lane.send(1, b"frame")
        with pytest.raises(websockets.ConnectionClosed):
            await lane.send(2, b"frame")
        await lane.close()


class _Leaving(stubs.SegmentationServicer):
    """Takes one frame, and ends the stream as if all were said."""

    async def Track(
        self, requests: AsyncIterator[pb.TrackRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.TrackResponse]:
        await anext(requests)
        yield pb.TrackResponse(session=pb.Session(session_id="s"))
        await anext(requests)

    async def DeleteSession(
        self, request: pb.DeleteSessionRequest, context: grpc.aio.ServicerContext
    ) -> pb.DeleteSessionResponse:
        return pb.DeleteSessionResponse()


async def test_a_grpc_stream_that_ends_fails_what_waits_and_what_is_sent_later() -> None:
    server = grpc.aio.server()
    stubs.add_SegmentationServicer_to_server(_Leaving(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(PATIENCE_S):
        lane = GrpcLane(channel)
        await lane.open(b"frame", b"mask")
        for index in (1, 2):
            with pytest.raises(ConnectionError, match="has ended"):
                await lane.send(index, b"frame")
        await lane.close()
    await server.stop(None)


async def test_the_bare_model_steps_through_a_window_in_order_and_works_on_the_next_frames_meanwhile() -> None:
    runtime = FakeRuntime(lanes=2)
    queue = BatchingQueue(runtime, max_objects=16, max_frames=1)
    prepared = Material.rendered(5, (64, 96)).for_model(runtime.info)
    lane = RawLane(queue, prepared, 2)
    await lane.open(b"", b"")
    inside = [await lane.send(1, b""), *await asyncio.gather(*(lane.send(index, b"") for index in range(2, 8)))]
    assert len(runtime.encoded) >= 5 and all(ms >= 1 for ms in inside)
    straight = FakeRuntime()
    (state,) = straight.initialise([prepared.frame(0)], [prepared.masks(2)])
    for index in range(1, 8):
        state = straight.step([prepared.frame(index)], [state])[0].state
    ours, theirs = (await lane._last).changing.tensors(), state.changing.tensors()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    await queue.close()
