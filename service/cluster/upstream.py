"""A caller's stream, carried on to the worker that has its session, and to the next one when that one dies.

What was asked is kept until it is answered, and what was answered until it is stored: a worker that takes the session
over gets it again, in its order. The caller's acknowledgements pass through; none is made here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from s2spp.v1 import segmentation_pb2 as pb
from service.client import wire
from service.client.errors import error_from_status
from service.client.kept import Kept, Sent
from service.client.patience import Patience
from service.cluster import convert
from service.cluster.directory import Directory
from service.cluster.links import Links, told
from service.cluster.moves import Moves
from service.core.cancelling import cancelled
from service.core.errors import (
    FrameAcknowledged,
    FrameDropped,
    IdempotencyKeyInUse,
    InvalidInput,
    Overloaded,
    OwnershipLost,
    S2sppError,
    Unavailable,
)
from service.core.ports import Resumed
from service.core.registry import WorkerState
from service.core.types import Answer, Failure, SessionId, SessionInfo

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
Call = Any
"""grpc.aio's StreamStreamCall, which has no types."""


@dataclass(eq=False)
class Asked(Sent):
    """`reply`: what the caller waits for."""

    reply: asyncio.Future[pb.TrackResponse] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def answer(self, event: pb.TrackResponse) -> None:
        if not self.reply.done():
            self.reply.set_result(event)

    def fail(self, problem: S2sppError) -> None:
        if not self.reply.done():
            self.reply.set_exception(problem)
            self.reply.exception()  # heard, should nobody wait for it any more


class _Interrupted(Exception):
    def __init__(self, problem: S2sppError) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Upstream:
    """One session's stream, for one event loop. Its calls raise what the workers say; once no worker could take the
    session for `retry_for_s`, an error that `ends_stream`."""

    def __init__(self, directory: Directory, links: Links, moves: Moves, client: str, retry_for_s: float) -> None:
        self._directory, self._links, self._moves = directory, links, moves
        self._metadata = (("x-s2spp-client", client),)
        self._patience = Patience(retry_for_s, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, at_once=True)
        self._session: SessionId | None = None
        self._epoch = 0
        self._kept = Kept()
        self._asked: deque[Asked] = deque()
        self._cursor = 0  # those of `_asked` before it were sent to the worker of now
        self._more = asyncio.Event()
        self._answered = asyncio.Event()
        self._received_through: int | None = None
        self._begun: asyncio.Future[Resumed] = asyncio.get_running_loop().create_future()
        self._problem: S2sppError | None = None
        self._left: str | None = None  # the worker that has handed the session over
        self._at = ""  # the worker that has, or had, the session
        self._task: asyncio.Task[None] | None = None

    async def open(self, request: pb.OpenSession) -> SessionInfo:
        """`request` has an idempotency key: it may be sent to several workers."""
        return (await self._begin(pb.TrackRequest(open=request))).info

    async def resume(self, session: SessionId, received_through: int | None, told_committed: int) -> Resumed:
        self._session, self._received_through = session, received_through
        self._kept.committed(told_committed)
        return await self._begin(self._resumption())

    async def ask(self, asked: Asked, received_through: int | None) -> pb.TrackResponse:
        """Sends, in the order of the calls. Returns the answer; raises what the worker says of it instead."""
        if self._problem is not None:
            raise self._problem
        if received_through is not None:
            self._received_through = max(received_through, self._received_through or 0)
        self._asked.append(asked)
        self._more.set()
        event = await asked.reply
        if event.HasField("error"):
            raise error_from_status(event.error.status)
        return event

    @property
    def told_committed(self) -> int:
        """The last frame that workers said to be stored."""
        return self._kept.told_committed

    async def close(self) -> None:
        await cancelled(self._task)
        self._end(Unavailable("this stream was closed"))

    async def _begin(self, first: pb.TrackRequest) -> Resumed:
        self._task = asyncio.create_task(self._run(first))
        try:
            return await asyncio.shield(self._begun)
        except BaseException:
            await self.close()
            raise

    async def _run(self, first: pb.TrackRequest) -> None:
        try:
            while True:
                try:
                    await self._follow(first)
                except _Interrupted as interruption:
                    pause_s = self._patience.pause_s(interruption.problem)
                    if pause_s is None:
                        if self._begun.done():
                            self._moves.ended()
                        raise interruption.problem from interruption
                    _log.debug("session %s has lost its worker: %s", self._session or "(new)", interruption.problem)
                    await asyncio.sleep(pause_s)
                first = self._resumption() if self._session is not None else first
        except S2sppError as problem:
            self._end(problem)
        except Exception:
            _log.exception("unexpected error in the stream of session %s", self._session)
            self._end(S2sppError("internal error in a stream; the gateway's log says more"))

    def _end(self, problem: S2sppError) -> None:
        # Its caller has to know: a frame sent later may not take the session back from whoever resumed it meanwhile.
        problem.ends_stream = True
        self._problem = self._problem or problem
        if not self._begun.done():
            self._begun.set_exception(problem)
            self._begun.exception()
        while self._asked:
            self._asked.popleft().fail(problem)

    def _resumption(self) -> pb.TrackRequest:
        assert self._session is not None
        resume = pb.ResumeSession(session_id=self._session, committed_frame=self._kept.told_committed)
        return pb.TrackRequest(resume=resume, received_through=self._received_through)

    async def _follow(self, first: pb.TrackRequest) -> None:
        """One worker, as long as it lasts. Raises _Interrupted, or what ends the stream."""
        worker: WorkerState | None = None
        call: Call = None
        sender: asyncio.Task[None] | None = None
        self._cursor = 0
        self._patience.begin()
        try:
            worker = await self._worker()
            call = self._links.stub(worker).Track(metadata=self._metadata)
            await told(worker, call.write(first))
            session = (await self._event(worker, call)).session
            answers = [await self._event(worker, call) for _ in range(session.answers_following)]
            await self._joined(worker, session, answers)
            in_flight: deque[Asked | Sent] = deque()
            sender = asyncio.create_task(self._send(worker, call, session.next_frame, in_flight))
            while True:
                self._take(await self._event(worker, call), in_flight.popleft())
        except S2sppError as problem:
            if worker is not None and self._session is None:
                self._directory.spare(worker)
            if worker is not None and "handed_over" in problem.metadata:
                self._left = worker.worker
                if self._patience.joined:
                    self._patience.progress()  # moving is no loss, however often
            elif worker is not None and not self._has_its_share(problem):
                self._directory.failed(worker, problem)
            if await self._may_go_on(problem, worker):
                raise _Interrupted(problem) from problem
            raise
        finally:
            if sender is not None:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
            if call is not None:
                call.cancel()

    async def _worker(self) -> WorkerState:
        if self._session is None:
            return self._directory.place()
        return await self._directory.home(self._session, self._left)

    @staticmethod
    async def _event(worker: WorkerState, call: Call) -> pb.TrackResponse:
        event = await told(worker, call.read())
        if event is grpc.aio.EOF:
            raise Unavailable(f"worker {worker.worker} ended the stream")
        assert isinstance(event, pb.TrackResponse)
        return event

    async def _may_go_on(self, problem: S2sppError, worker: WorkerState | None) -> bool:
        """Another worker may do better: this one is away, full, failed within, or has lost the session to nobody."""
        if self._has_its_share(problem):
            return False
        if isinstance(problem, Unavailable | IdempotencyKeyInUse) or type(problem) is S2sppError:
            return True
        if isinstance(problem, OwnershipLost) and problem.metadata.get("by") == "worker" and self._session is not None:
            with suppress(Unavailable):
                owner = await self._directory.owner(self._session)
                return owner is not None and owner.epoch <= self._epoch
            return True
        return isinstance(problem, Overloaded) and (worker is not None or self._session is not None)

    def _has_its_share(self, problem: S2sppError) -> bool:
        """The worker has room for other clients' new sessions."""
        return self._session is None and problem.metadata.get("limit") == "client"

    async def _joined(self, worker: WorkerState, session: pb.Session, answers: list[pb.TrackResponse]) -> None:
        """The worker has the session. `answers`: those after what the caller has acknowledged."""
        self._patience.join()
        self._left = None
        before, self._at = self._at, worker.worker
        self._session, self._epoch = SessionId(session.session_id), max(self._epoch, session.epoch)
        self._kept.committed(session.committed_frame)
        if not self._begun.done():
            outcomes = tuple(_outcome(event) for event in answers)
            self._begun.set_result(Resumed(wire.session_info(session), outcomes))
            return
        again = self._kept.since(session.next_frame)
        self._moves.moved(before, self._at, len(again))
        _log.debug("session %s goes on at worker %s with frame %d", self._session, self._at, session.next_frame)
        for event in answers:
            index = event.mask.frame_index if event.HasField("mask") else event.error.frame_index
            for asked in [each for each in self._asked if not each.is_change and each.frame_index == index]:
                self._asked.remove(asked)
                self._settle(asked, event)

    async def _send(self, worker: WorkerState, call: Call, next_frame: int, in_flight: deque[Asked | Sent]) -> None:
        """What the worker lacks of what was answered, then what is asked, as it comes."""
        for sent in self._kept.since(next_frame):
            sent.done = False
            if not sent.is_change:
                sent.request.frame.again = True
            await self._pass_on(worker, call, sent, in_flight)
        if self._patience.lost_since is not None:
            # It would have been next, and its caller has waited since.
            for asked in [each for each in self._asked if not each.is_change][:1]:
                asked.request.frame.again = True
        while True:
            while self._cursor < len(self._asked):
                asked = self._asked[self._cursor]
                self._cursor += 1
                await self._pass_on(worker, call, asked, in_flight)
            self._more.clear()
            await self._more.wait()

    async def _pass_on(self, worker: WorkerState, call: Call, sent: Sent, in_flight: deque[Asked | Sent]) -> None:
        if self._received_through is not None:
            sent.request.received_through = self._received_through
        in_flight.append(sent)
        await told(worker, call.write(sent.request))
        while sent.is_change and not sent.done:
            # A frame that overtook a change that fails for now, or whose answer is lost, would go on without it.
            self._answered.clear()
            await self._answered.wait()

    def _take(self, event: pb.TrackResponse, sent: Asked | Sent) -> None:
        if self._asked and self._asked[0] is sent:
            # What is answered once more, after a crash, is no progress yet.
            self._patience.progress()
            self._asked.popleft()
            self._cursor -= 1
            assert isinstance(sent, Asked)
            self._settle(sent, event)
        elif event.HasField("error") and not _is_over(event.error, sent):
            # It was answered before, by another worker: this one has to come to the same.
            raise error_from_status(event.error.status)
        sent.done = True
        self._answered.set()
        self._kept.committed(_committed(event))

    def _settle(self, asked: Asked, event: pb.TrackResponse) -> None:
        if event.HasField("objects"):
            _place(asked, event.objects.next_frame - 1)
        if not event.HasField("error") or _takes_its_index(event.error):
            self._kept.add(asked)
        self._kept.committed(_committed(event))
        asked.answer(event)


def _takes_its_index(error: pb.FrameError) -> bool:
    """A bad frame, or one that was dropped: the next one follows it all the same."""
    return not error.of_change and isinstance(error_from_status(error.status), InvalidInput | FrameDropped)


def _is_over(error: pb.FrameError, sent: Sent) -> bool:
    """What was answered once and is sent again is as it was, with this error. Changes that all are there already are
    made once more, one after the other: that comes to the same, and what is refused on the way is."""
    if sent.is_change:
        return isinstance(error_from_status(error.status), InvalidInput | FrameAcknowledged)
    return _takes_its_index(error)


def _place(sent: Sent, frame_index: int) -> None:
    """Where its caller left that out. Sent again it belongs there, wherever its session has got to."""
    change = sent.request.draw if sent.request.HasField("draw") else sent.request.remove
    if not change.HasField("frame_index"):
        sent.frame_index = change.frame_index = frame_index


def _committed(event: pb.TrackResponse) -> int:
    match event.WhichOneof("event"):
        case "mask":
            return event.mask.committed_frame
        case "error":
            return event.error.committed_frame
        case _:
            return event.objects.committed_frame


def _outcome(event: pb.TrackResponse) -> Answer | Failure:
    if event.HasField("mask"):
        return convert.answer(event.mask)
    error = error_from_status(event.error.status)
    return Failure(event.error.frame_index, error.reason, error.message, error.metadata)
