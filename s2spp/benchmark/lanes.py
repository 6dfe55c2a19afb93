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

from s2spp.benchmark.material import ModelMaterial
from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc as stubs
from service.core.ports import Engine, Features, Seen, StepQueue
from service.core.state import State
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


class RawLane:
    """The bare model: frames decoded and resized beforehand, probabilities left as they are. As in the engine, frames
    that wait for the one before are encoded meanwhile."""

    def __init__(self, queue: StepQueue, material: ModelMaterial, objects: int) -> None:
        self._queue = queue
        self._material = material
        self._masks = material.masks(objects)
        self._last: asyncio.Future[State]

    async def open(self, frame: bytes, mask: bytes) -> None:
        self._last = asyncio.get_running_loop().create_future()
        self._last.set_result(await self._queue.initialise(self._material.frame(0), self._masks))

    async def send(self, frame_index: int, frame: bytes) -> float:
        before = self._last
        self._last = made = asyncio.get_running_loop().create_future()
        seen: Seen = self._material.frame(frame_index)
        if not before.done():
            seen = await self._queue.encode(self._material.frame(frame_index))
        result = await self._queue.step(seen, await before)
        made.set_result(result.state)
        return result.compute_ms + (seen.made.seconds * 1e3 if isinstance(seen, Features) else 0.0)

    async def close(self) -> None:
        """Nothing of it is kept anywhere."""


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


class _StreamLane:
    """Answers come in the order of the frames. A stream that ends fails whoever waits, and whoever sends later: nobody
    waits for ever."""

    _reader: asyncio.Task[None]

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[float]] = deque()
        self._ended: Exception = ConnectionError("the stream has ended")

    async def _next_answer(self) -> float:
        """Milliseconds inside the model. Raises where the stream ends."""
        raise NotImplementedError

    async def _read(self) -> None:
        try:
            while True:
                ms = await self._next_answer()
                self._waiting.popleft().set_result(ms)
        except Exception as error:  # which nobody may be waiting for
            self._ended = error
        finally:
            for answer in self._waiting:
                if not answer.done():  # whose sender was cancelled
                    answer.set_exception(self._ended)

    def _answer(self) -> asyncio.Future[float]:
        """Of the frame that is sent next."""
        if self._reader.done():
            raise self._ended
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        return answer


class WebSocketLane(_StreamLane):
    """A binary message per frame; a JSON message and a binary one come back."""

    def __init__(self, http: str, client: httpx.AsyncClient) -> None:
        super().__init__()
        self._http = http
        self._rest = RestLane(client)

    async def open(self, frame: bytes, mask: bytes) -> None:
        await self._rest.open(frame, mask)
        url = self._http.replace("http", "ws", 1) + f"/v1/sessions/{self._rest._session}/stream"
        self._socket = await websockets.connect(url, max_size=None, compression=None)
        await self._socket.recv()  # where the session stands
        self._reader = asyncio.create_task(self._read())

    async def _next_answer(self) -> float:
        told: dict[str, Any] = json.loads(await self._socket.recv())
        if "reason" in told:
            raise ValueError(f"WebSocket: {told}")
        await self._socket.recv()
        return float(told["compute_ms"])

    async def send(self, frame_index: int, frame: bytes) -> float:
        answer = self._answer()
        await self._socket.send(frame)
        return await answer

    async def close(self) -> None:
        await self._socket.close()
        await self._reader
        await self._rest.close()


class GrpcLane(_StreamLane):
    """The Track stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__()
        self._stub = stubs.SegmentationStub(channel)
        self._requests: asyncio.Queue[pb.TrackRequest | None] = asyncio.Queue()

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

    async def _next_answer(self) -> float:
        event = await self._call.read()
        if not isinstance(event, pb.TrackResponse):
            raise self._ended
        if not event.HasField("mask"):
            raise ValueError(f"gRPC: {event.error.status.message}")
        return event.mask.compute_ms

    async def send(self, frame_index: int, frame: bytes) -> float:
        answer = self._answer()
        message = pb.Frame(frame_index=frame_index, image=pb.Image(data=frame))
        await self._requests.put(pb.TrackRequest(frame=message))
        return await answer

    async def close(self) -> None:
        await self._requests.put(None)
        await self._reader
        await self._stub.DeleteSession(pb.DeleteSessionRequest(session_id=self._session))
