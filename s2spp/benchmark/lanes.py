"""Lanes: one session on one path. `send` may be called again before it returned, except over REST."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc
import httpx
import websockets

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc as stubs
from service.core.ports import Engine
from service.core.types import Durability, EncodedImage, SessionId, SessionOptions


class Lane(Protocol):
    async def open(self, frame: bytes, mask: bytes) -> None: ...

    async def send(self, frame_index: int, frame: bytes) -> float:
        """One frame; returns, once its mask has arrived, the milliseconds it spent inside the model."""
        ...

    async def close(self) -> None: ...


class EngineLane:
    """The engine in this process, without a network."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session = SessionId("")

    async def open(self, frame: bytes, mask: bytes) -> None:
        opened = await self._engine.open(EncodedImage(frame), EncodedImage(mask), SessionOptions())
        self._session = opened.info.session

    async def send(self, frame_index: int, frame: bytes) -> float:
        delivered = await self._engine.segment(
            self._session, frame_index, EncodedImage(frame), durability=Durability.RELAXED
        )
        return delivered.answer.compute_ms

    async def close(self) -> None:
        await self._engine.delete(self._session)


class RestLane:
    """A POST per frame, every answer durable (the default there)."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._session = ""

    async def open(self, frame: bytes, mask: bytes) -> None:
        response = await self._client.post("/v1/sessions", files={"frame": ("f", frame), "mask": ("m", mask)})
        self._session = response.raise_for_status().json()["session"]

    async def send(self, frame_index: int, frame: bytes) -> float:
        path = f"/v1/sessions/{self._session}/frames/{frame_index}"
        response = await self._client.post(path, content=frame, headers={"Content-Type": "image/jpeg"})
        return float(response.raise_for_status().headers["S2spp-Compute-Ms"])

    async def close(self) -> None:
        await self._client.delete(f"/v1/sessions/{self._session}")


class WebSocketLane:
    """A binary message per frame; a JSON message and a binary one come back."""

    def __init__(self, http: str, client: httpx.AsyncClient) -> None:
        self._http = http
        self._rest = RestLane(client)
        self._waiting: deque[asyncio.Future[float]] = deque()

    async def open(self, frame: bytes, mask: bytes) -> None:
        await self._rest.open(frame, mask)
        url = self._http.replace("http", "ws", 1) + f"/v1/sessions/{self._rest._session}/stream"
        self._socket = await websockets.connect(url, max_size=None, compression=None)
        await self._socket.recv()  # where the session stands
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                told: dict[str, Any] = json.loads(await self._socket.recv())
                if "reason" in told:
                    raise ValueError(f"WebSocket: {told}")
                await self._socket.recv()
                self._waiting.popleft().set_result(float(told["compute_ms"]))
        except Exception as error:  # the end of the connection too, which nobody may be waiting at
            while self._waiting:
                self._waiting.popleft().set_exception(error)

    async def send(self, frame_index: int, frame: bytes) -> float:
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        await self._socket.send(frame)
        return await answer

    async def close(self) -> None:
        await self._socket.close()
        await self._reader
        await self._rest.close()


class GrpcLane:
    """The Track stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = stubs.SegmentationStub(channel)
        self._requests: asyncio.Queue[pb.TrackRequest | None] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[float]] = {}

    async def _feed(self) -> AsyncIterator[pb.TrackRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def open(self, frame: bytes, mask: bytes) -> None:
        self._call = self._stub.Track(self._feed())
        opening = pb.OpenSession(frame=pb.Image(data=frame), mask=pb.Image(data=mask))
        await self._requests.put(pb.TrackRequest(open=opening))
        opened = await self._call.read()
        assert isinstance(opened, pb.TrackResponse), "the stream ended before it opened"
        self._session = opened.session.session_id
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while isinstance(event := await self._call.read(), pb.TrackResponse):
                if event.HasField("mask"):
                    self._waiting.pop(event.mask.frame_index).set_result(event.mask.compute_ms)
                else:
                    raise ValueError(f"gRPC: {event.error.status.message}")
        except Exception as error:
            for answer in self._waiting.values():
                answer.set_exception(error)

    async def send(self, frame_index: int, frame: bytes) -> float:
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting[frame_index] = answer
        message = pb.Frame(frame_index=frame_index, image=pb.Image(data=frame))
        await self._requests.put(pb.TrackRequest(frame=message))
        return await answer

    async def close(self) -> None:
        await self._requests.put(None)
        await self._reader
        await self._stub.DeleteSession(pb.DeleteSessionRequest(session_id=self._session))
