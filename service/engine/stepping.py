"""One accepted frame on its way: read shortly before its turn, stepped in its turn, answered in its turn.

So frame n+1 is decoded, and what the model makes of it alone is worked out, while n is stepped, and stepped while the
mask of n is encoded; the order of states and answers is that of the indices all the same. No more are read ahead than
keep the cores busy: a full window would hold up what others wait for, and fill the memory.
A frame that has the engine to itself goes through all of it in one thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from service.core.errors import (
    FrameDropped,
    FrameGap,
    InvalidImage,
    InvalidInput,
    InvalidMask,
    InvalidOption,
    S2sppError,
    Unavailable,
)
from service.core.ports import EngineObserver, Features, FrameTimes, Period, Seen, StepQueue, StepResult
from service.core.state import State
from service.core.types import (
    Answer,
    DrawObjects,
    EncodedImage,
    Failure,
    ImageU8,
    ModelInfo,
    ObjectChange,
    RemoveObject,
    SessionId,
)
from service.engine.faults import told
from service.engine.limits import EngineLimits
from service.engine.objects import Change, Followed
from service.engine.pixels import make_answer, read_frame, read_opening
from service.engine.session import Session
from service.engine.table import Resident
from service.engine.turns import Entry, Outcome, Turn, overtaken

_Result = TypeVar("_Result")
_Read = Callable[[], tuple[ImageU8, Period] | InvalidInput | FrameDropped]


class _PredecessorFailed(Exception):
    """A frame before this one is gone from the order, and with it the state that this one was to step."""


class _Paused(Exception):
    """The session is about to go on elsewhere."""


class Stepper:
    """Takes accepted frames to their outcome."""

    def __init__(
        self, queue: StepQueue, threads: Executor, info: ModelInfo, limits: EngineLimits, observer: EngineObserver
    ) -> None:
        self._queue = queue
        self._threads = threads
        self._info = info
        self._limits = limits
        self._observer = observer
        self._latest: SessionId | None = None  # whose frame came last

    async def answer(
        self, resident: Resident, entry: Entry, image: EncodedImage, before: Turn, turn: Turn
    ) -> Outcome | S2sppError:
        """The outcome, settled in the session; or the error to raise, the frame's index being open again."""
        session = resident.session
        try:
            return await self._answer(resident, entry, image, before, turn)
        except _PredecessorFailed:
            return FrameGap(
                f"frame {entry.index} cannot be answered, because one before it failed; "
                f"send frame {session.next_frame} next",
                expected=session.next_frame,
            )
        except _Paused:
            session.roll_back(entry, before)
            return Unavailable(
                f"session {session.id} is about to go on elsewhere; send frame {entry.index} again in a moment"
            )
        except Exception as error:
            session.roll_back(entry, before)
            problem = told(error, f"answering frame {entry.index} of session {session.id}")
            self._observer.frame_failed(problem.reason)
            return problem
        finally:
            turn.abandon()

    async def _answer(self, resident: Resident, entry: Entry, image: EncodedImage, before: Turn, turn: Turn) -> Outcome:
        session, accepted_at = resident.session, time.perf_counter()
        if not session.realtime:  # there the newest that is decoded tells the others that they are overtaken
            await session.ahead.enter(turn, lambda: self._queue.ahead)
            if before.abandoned:
                raise _PredecessorFailed
        read = _reading(session, entry, image, self._limits)
        alone, self._latest = self._is_alone(session, entry, before), session.id
        if alone:
            way = await self._straight(resident, entry, read, before, turn)
        else:
            way = await self._in_turns(resident, entry, read, before, turn)
        if not await before.settled:
            raise _PredecessorFailed
        session.settle(entry, way.outcome, way.followed)
        turn.settled.set_result(True)
        answered_at = time.perf_counter()
        resident.commits.answered(answered_at)
        if way.stages is not None:
            self._observer.frame_answered(FrameTimes(entry.index, Period(accepted_at, answered_at), *way.stages))
        elif isinstance(way.outcome, Failure) and way.outcome.reason == FrameDropped.reason:
            self._observer.frame_dropped()
        elif isinstance(way.outcome, Failure):
            self._observer.frame_failed(way.outcome.reason)
        return way.outcome

    def _is_alone(self, session: Session, entry: Entry, before: Turn) -> bool:
        """No frame is before it, none behind it, the runtime has nothing to do, and no other session is likely to come:
        its frame would be decoded meanwhile, and run as a batch with this one. (Behind what is urgent others come.)"""
        followed = before.stepped.result() if before.stepped.done() else None
        newest = entry.index == session.next_frame - 1 and entry.urgent is None
        usual = newest and session.id == self._latest
        return followed is not None and usual and self._queue.idle(len(followed.object_ids))

    async def _straight(self, resident: Resident, entry: Entry, read: _Read, before: Turn, turn: Turn) -> _Way:
        """All in the runtime's thread: from one thread to another, when all have slept since the frame before, takes a
        tenth of a millisecond and more each time."""
        session = resident.session
        followed = await self._before(resident, entry, before)
        turn.begin()

        def work(step: Callable[[ImageU8, State], StepResult]) -> _Way:
            found = read()
            if isinstance(found, S2sppError):
                return _failed(entry, found, followed)
            frame, decode = found
            queue = Period(decode.ended, time.perf_counter())
            result = step(frame, followed.state)
            return _way(result, followed, decode, queue, *_answered(session, entry, result, followed))

        way = await self._queue.alone(work)
        if way.stages is not None:
            session.newest_ready = max(session.newest_ready, entry.index)
        turn.step(way.followed)
        return way

    async def _in_turns(self, resident: Resident, entry: Entry, read: _Read, before: Turn, turn: Turn) -> _Way:
        """Each stage in a thread of its kind, beside other frames in other stages."""
        session = resident.session
        found = await self._threaded(read)
        frame: Seen | None = None
        if not isinstance(found, S2sppError):
            session.newest_ready = max(session.newest_ready, entry.index)
            frame = found[0]
            if not session.realtime:  # there a newer one may come before its turn, and it would be for nothing
                frame = await self._queue.encode(frame, urgent=entry.urgent)
        followed = await self._before(resident, entry, before)
        if session.realtime and entry.index < session.newest_ready:
            found = overtaken(entry.index)
        if isinstance(found, S2sppError):
            turn.step(followed)
            return _failed(entry, found, followed)
        assert frame is not None
        handed_at = time.perf_counter()
        turn.begin()
        result = await self._queue.step(frame, followed.state, urgent=entry.urgent)
        turn.step(Followed(followed.object_ids, result.state))
        features = frame.made if isinstance(frame, Features) else None
        answered = await self._threaded(lambda: _answered(session, entry, result, followed, features))
        queue = Period(handed_at, handed_at + result.queue_ms / 1e3)
        return _way(result, followed, found[1], queue, *answered, features)

    @staticmethod
    async def _before(resident: Resident, entry: Entry, before: Turn) -> Followed:
        """What this frame is stepped from, once that is there."""
        followed = await before.stepped
        if followed is None:
            raise _PredecessorFailed
        if resident.commits.gone is not None:
            raise resident.commits.gone
        if resident.session.paused and entry.of_stream:
            raise _Paused
        return followed

    async def change(
        self,
        resident: Resident,
        change: Change,
        wanted: ObjectChange,
        ordinal: int | None,
        before: Turn,
        turn: Turn,
    ) -> S2sppError | None:
        """The objects as `wanted`, settled in the session; or the error that kept them as they were. What comes behind
        goes on either way."""
        session = resident.session
        try:
            drawn = await self._drawn(resident, wanted, before) if isinstance(wanted, DrawObjects) else None
            followed = await before.stepped
            if followed is None:
                return FrameGap(
                    f"objects cannot be changed here, because the frame before failed; send frame {session.next_frame} "
                    "next",
                    expected=session.next_frame,
                )
            problem = drawn if isinstance(drawn, S2sppError) else None
            problem = problem or resident.commits.gone
            if problem is None and ordinal not in (None, change.ordinal):
                problem = FrameGap(
                    f"change {ordinal} cannot be made, because one before it failed; send change {change.ordinal} next",
                    expected=session.next_frame,
                    expected_ordinal=change.ordinal,
                )
            if problem is None:
                try:
                    followed = await self._threaded(partial(self._changed, followed, wanted, drawn))
                except Exception as error:
                    problem = told(error, f"changing the objects of session {session.id}")
            if problem is not None:
                change.withdraw()  # before those behind it are let go: they count
            turn.step(followed)
            if not await before.settled:
                return FrameGap("the frame before failed", expected=session.next_frame)
            if problem is None:
                session.settle_change(change, followed)
            turn.settled.set_result(True)
            return problem
        finally:
            session.end_change(change)
            turn.abandon()

    def _changed(self, followed: Followed, wanted: ObjectChange, drawn: Followed | S2sppError | None) -> Followed:
        if isinstance(wanted, RemoveObject):
            if wanted.object_id not in followed.object_ids:
                known = ", ".join(map(str, followed.object_ids))
                raise InvalidOption(f"no object {wanted.object_id} is followed here; there are {known}")
            if len(followed.object_ids) == 1:
                raise InvalidOption("it is the only object: delete the session, or draw another one first")
            return followed.without(wanted.object_id)
        assert isinstance(drawn, Followed)
        return followed.with_drawn(drawn)

    async def _drawn(self, resident: Resident, wanted: DrawObjects, before: Turn) -> Followed | S2sppError:
        """State of the objects that are drawn, on the frame that comes along."""
        session = resident.session
        try:
            opening = await self._threaded(
                lambda: read_opening(wanted.frame, wanted.mask, self._info, self._limits, wanted.as_object)
            )
            if (opening.height, opening.width) != session.frame_size:
                height, width = session.frame_size
                return InvalidImage(
                    f"the frame is {opening.width} x {opening.height} but the session's are {width} x {height}",
                    height=height,
                    width=width,
                )
            followed = await before.stepped
            count = len({*opening.object_ids, *(followed.object_ids if followed is not None else ())})
            if count > self._limits.max_objects:
                return InvalidMask(f"{count} objects; at most {self._limits.max_objects} are taken (S2SPP_MAX_OBJECTS)")
            return Followed(opening.object_ids, await self._queue.initialise(opening.frame, opening.masks))
        except Exception as error:
            return told(error, f"changing the objects of session {session.id}")

    async def _threaded(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


@dataclass(frozen=True)
class _Way:
    """What became of a frame. `followed`: after it. `stages`: those of FrameTimes; None of one that was not stepped."""

    outcome: Outcome
    followed: Followed
    stages: tuple[Period, Period | None, Period, Period, Period] | None


def _way(
    result: StepResult,
    before: Followed,
    decode: Period,
    queue: Period,
    answer: Answer,
    encode: Period,
    features: Period | None = None,
) -> _Way:
    compute = Period(queue.ended, queue.ended + result.compute_ms / 1e3)
    return _Way(answer, Followed(before.object_ids, result.state), (decode, features, queue, compute, encode))


def _failed(entry: Entry, error: InvalidInput | FrameDropped, followed: Followed) -> _Way:
    return _Way(Failure(entry.index, error.reason, error.message, error.metadata), followed, None)


def _reading(session: Session, entry: Entry, image: EncodedImage, limits: EngineLimits) -> _Read:
    """For a thread: the frame on the model's grid, or why it cannot be used."""

    def read() -> ImageU8:
        # Where decoding itself falls behind, only the newest that waits for it is worth it.
        if session.realtime and entry.index < session.next_frame - 1:
            raise overtaken(entry.index)
        return read_frame(image, limits.images, session.frame_size, session.size)

    def found() -> tuple[ImageU8, Period] | InvalidInput | FrameDropped:
        try:
            return _timed(read)
        except (InvalidInput, FrameDropped) as error:
            return error

    return found


def _answered(
    session: Session, entry: Entry, result: StepResult, followed: Followed, features: Period | None = None
) -> tuple[Answer, Period]:
    """For a thread."""
    ahead_ms = features.seconds * 1e3 if features is not None else 0.0
    return _timed(
        lambda: make_answer(
            entry.index,
            result.probability,
            followed.object_ids,
            session.frame_size,
            session.options.mask_format,
            result.compute_ms + ahead_ms,
        )
    )


def _timed(work: Callable[[], _Result]) -> tuple[_Result, Period]:
    began = time.perf_counter()
    result = work()
    return result, Period(began, time.perf_counter())
