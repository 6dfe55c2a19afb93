"""Lanes tell of a server that goes away: a benchmark that waits for ever tells nothing."""

from __future__ import annotations

import asyncio

import httpx
import pytest
import websockets

from s2spp.benchmark.lanes import WebSocketLane
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
        await lane.close()
