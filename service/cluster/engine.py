"""The Engine port of a gateway: each call goes to the worker that has the session, or to one that takes it over.

Streams are carried by an Upstream each. Single calls are sent again where a worker dies under them: frames, changes and
openings may come twice, and have their effect once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import grpc

from s2spp.v1 import segmentation_pb2 as pb
from service.client import wire
from service.cluster import convert
from service.cluster.directory import Directory
from service.cluster.links import Links, Stub, told
from service.cluster.moves import Moves
from service.cluster.upstream import Asked, Upstream
from service.core.cancelling import cancelled
from service.core.errors import (
    IdempotencyKeyInUse,
    Overloaded,
    OwnershipLost,
    S2sppError,
    SessionUnknown,
    Unavailable,
)
from service.core.ports import Delivered, Opened, Resumed
from service.core.registry import ClusterObserver, WorkerRegistry, WorkerState
from service.core.types import (
    Durability,
    EncodedImage,
    ModelInfo,
    ObjectChange,
    SessionId,
    SessionInfo,
    SessionOptions,
    passing_key,
)

_log = logging.getLogger(__name__)
_Reply = TypeVar("_Reply")
_CALL_S = 30.0
_PAUSE_S = 0.05
_MEET_EVERY_S, _MEET_AGAIN_S, _MEET_WITHIN_S = 0.1, 0.5, 2.0


class ClusterEngine:
    """For one event loop, from `start` until `close`."""

    def __init__(self, registry: WorkerRegistry, observer: ClusterObserver, retry_for_s: float = 10.0) -> None:
        """`retry_for_s`: how long another worker is looked for. A caller waits that long at most."""
        self._moves = Moves(observer)
        self._links = Links()
        self._cutting: set[asyncio.Task[None]] = set()
        self._directory = Directory(registry, self._cut)
        self._retry_for_s = retry_for_s
        self._streams: dict[tuple[SessionId, str], Upstream] = {}
        self._models: dict[str, ModelInfo] = {}
        self._learning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises Unavailable: the registry does not answer."""
        await self._directory.start()
        self._learning = asyncio.create_task(self._learn())
        # Those that are there are met before the first caller comes; one that does not answer is not waited for long.
        until = time.monotonic() + _MEET_WITHIN_S
        while self._directory.strangers and time.monotonic() < until:
            await asyncio.sleep(_MEET_EVERY_S / 5)

    async def close(self) -> None:
        await cancelled(self._learning)
        await self._directory.stop()
        await asyncio.gather(*(stream.close() for stream in self._streams.values()))
        await self._links.close()

    async def open(
        self,
        frame: EncodedImage,
        mask: EncodedImage,
        options: SessionOptions,
        *,
        client: str = "",
        idempotency_key: str | None = None,
        stream: str | None = None,
    ) -> Opened:
        key = passing_key() if idempotency_key is None else idempotency_key
        picture, drawn, chosen = convert.image(frame), convert.image(mask), convert.options(options)
        if stream is not None:
            upstream = self._upstream(client)
            info = await upstream.open(pb.OpenSession(frame=picture, mask=drawn, options=chosen, idempotency_key=key))
            self._streams[info.session, stream] = upstream
            return Opened(info, state_bytes=0)
        request = pb.CreateSessionRequest(frame=picture, mask=drawn, options=chosen, idempotency_key=key)

        def create(stub: Stub) -> Awaitable[pb.CreateSessionResponse]:
            return stub.CreateSession(request, timeout=_CALL_S, metadata=(("x-s2spp-client", client),))

        created = await self._call(None, create)
        return Opened(wire.session_info(created.session), created.state_bytes, created.replayed)

    def refuse_if_full(self, client: str = "") -> None:
        self._directory.refuse_if_full()

    async def segment(
        self,
        session: SessionId,
        frame_index: int,
        frame: EncodedImage,
        *,
        durability: Durability,
        received_through: int | None = None,
        told_committed: int = 0,
        stream: str | None = None,
        again: bool = False,
    ) -> Delivered:
        if stream is not None:
            request = convert.frame_request(frame_index, frame, durability, again)
            asked = Asked(frame_index, False, request)
            return convert.delivered((await self._stream(session, stream).ask(asked, received_through)).mask)
        single = pb.SegmentFrameRequest(
            session_id=session,
            frame_index=frame_index,
            image=convert.image(frame),
            received_through=received_through,
            durability=convert.durability(durability),
            committed_frame=told_committed,
        )
        answered = await self._call(session, lambda stub: stub.SegmentFrame(single, timeout=_CALL_S))
        return convert.delivered(answered.mask)

    async def resume(
        self,
        session: SessionId,
        received_through: int | None,
        stream: str | None = None,
        told_committed: int = 0,
    ) -> Resumed:
        upstream = self._upstream("")
        resumed = await upstream.resume(session, received_through, told_committed)
        if stream is None:
            await upstream.close()
        else:
            self._streams[session, stream] = upstream
        return resumed

    async def leave(self, session: SessionId, stream: str) -> None:
        upstream = self._streams.pop((session, stream), None)
        if upstream is not None:
            await upstream.close()

    def pause(self, session: SessionId, stream: str) -> bool:
        """Nothing here is stepped."""
        return False

    async def release(self, session: SessionId, stream: str | None = None) -> SessionInfo:
        """The worker has the session, and keeps it: another gateway finds it there."""
        return await self.describe(session)

    async def change(
        self,
        session: SessionId,
        frame_index: int | None,
        change: ObjectChange,
        *,
        durability: Durability,
        ordinal: int | None = None,
        stream: str | None = None,
    ) -> SessionInfo:
        given = convert.change(frame_index, change, ordinal, durability)
        if stream is not None:
            asked = Asked(frame_index or 0, True, convert.change_request(given))
            return wire.session_info((await self._stream(session, stream).ask(asked, None)).objects)
        if isinstance(given, pb.Drawing):
            draw = pb.DrawObjectsRequest(session_id=session, drawing=given)
            drawn = await self._call(session, lambda stub: stub.DrawObjects(draw, timeout=_CALL_S))
            return wire.session_info(drawn.session)
        remove = pb.RemoveObjectRequest(session_id=session, removal=given)
        removed = await self._call(session, lambda stub: stub.RemoveObject(remove, timeout=_CALL_S))
        return wire.session_info(removed.session)

    def committed_frame(self, session: SessionId, stream: str) -> int:
        upstream = self._streams.get((session, stream))
        return 0 if upstream is None else upstream.told_committed

    async def describe(self, session: SessionId) -> SessionInfo:
        request = pb.GetSessionRequest(session_id=session)
        answer = await self._call(session, lambda stub: stub.GetSession(request, timeout=_CALL_S))
        return wire.session_info(answer.session)

    async def delete(self, session: SessionId) -> None:
        request = pb.DeleteSessionRequest(session_id=session)
        attempts = 0

        def delete(stub: Stub) -> Awaitable[pb.DeleteSessionResponse]:
            nonlocal attempts
            attempts += 1
            return stub.DeleteSession(request, timeout=_CALL_S)

        try:
            await self._call(session, delete)
        except SessionUnknown:
            if attempts == 1:
                raise  # else an earlier attempt did it, and its answer was lost

    async def ready(self) -> None:
        self._directory.refuse_if_none()

    def models(self) -> Sequence[ModelInfo]:
        served = {worker.model_digest for worker in self._directory.alive}
        return [info for digest, info in self._models.items() if digest in served]

    def _upstream(self, client: str) -> Upstream:
        return Upstream(self._directory, self._links, self._moves, client, self._retry_for_s)

    def _stream(self, session: SessionId, stream: str) -> Upstream:
        upstream = self._streams.get((session, stream))
        if upstream is None:
            raise OwnershipLost("this stream has no session here; resume it", by="stream")
        return upstream

    async def _call(self, session: SessionId | None, ask: Callable[[Stub], Awaitable[_Reply]]) -> _Reply:
        """A single call, sent again to the next worker where this one is away, full, or has lost the session."""
        deadline = time.monotonic() + self._retry_for_s
        while True:
            worker: WorkerState | None = None
            try:
                worker = self._directory.place() if session is None else await self._directory.home(session)
                return await told(worker, ask(self._links.stub(worker)))
            except S2sppError as problem:
                if session is None and worker is not None:
                    self._directory.spare(worker)
                if not isinstance(problem, Unavailable | OwnershipLost | IdempotencyKeyInUse | Overloaded):
                    raise
                if session is None and problem.metadata.get("limit") == "client":
                    raise  # the worker has room for others
                if worker is not None:
                    self._directory.failed(worker, problem)
                elif isinstance(problem, Overloaded):
                    raise
                if isinstance(problem, OwnershipLost) and problem.metadata.get("by") != "worker":
                    raise
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_PAUSE_S)

    def _cut(self, worker: WorkerState) -> None:
        task = asyncio.create_task(self._links.cut(worker))
        self._cutting.add(task)
        task.add_done_callback(self._cutting.discard)

    async def _learn(self) -> None:
        """Meets the workers as they come."""
        meeting: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                strangers = {worker.worker: worker for worker in self._directory.strangers}
                for name in [name for name, task in meeting.items() if name not in strangers or task.done()]:
                    meeting.pop(name).cancel()
                for name in strangers.keys() - meeting.keys():
                    meeting[name] = group.create_task(self._meet(strangers[name]))
                await asyncio.sleep(_MEET_EVERY_S)

    async def _meet(self, worker: WorkerState) -> None:
        """Until it has said what model it serves: before, no session is placed there."""
        pause_s = _MEET_EVERY_S
        while True:
            try:
                stub = self._links.stub(worker)
                model = wire.model_info(await stub.GetModel(pb.GetModelRequest(), timeout=_MEET_WITHIN_S))
                break
            except Exception as problem:
                if pause_s == _MEET_EVERY_S:
                    said = problem.details() if isinstance(problem, grpc.aio.AioRpcError) else problem
                    _log.warning(
                        "worker %s says that gateways reach it at %s, and does not answer there: %s. Set its "
                        "S2SPP_ADVERTISE to the host:port where this gateway reaches its gRPC",
                        worker.worker,
                        worker.address,
                        said,
                    )
            await asyncio.sleep(pause_s)
            pause_s = _MEET_AGAIN_S
        self._models[worker.model_digest] = model
        self._directory.met(worker)
        _log.info(
            "worker %s joins at %s: model %s, %d slots; workers now: %d",
            worker.worker,
            worker.address,
            model.name,
            worker.capacity,
            len(self._directory.reached),
        )
