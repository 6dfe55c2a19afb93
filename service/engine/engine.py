"""The Engine port in one process: sessions in memory, stepped through a queue, kept in a store.

Public calls decide; the parts do: `opening` how a session begins, `session` the rules, `stepping` one frame's way,
`commit` what is stored when, `residence` who is in memory. Whatever must outlive its caller (a frame, a save, a
restore) is one of the engine's `tasks`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from service.core.errors import FrameAcknowledged, FrameGap, OwnershipLost, S2sppError, error_from_reason
from service.core.ports import Clock, Delivered, EngineObserver, Opened, Resumed, SessionStore, StepQueue
from service.core.types import (
    Durability,
    EncodedImage,
    Failure,
    ModelInfo,
    ObjectChange,
    SessionId,
    SessionInfo,
    SessionOptions,
)
from service.engine.limits import EngineLimits
from service.engine.objects import digest_of
from service.engine.observer import SilentObserver
from service.engine.opening import Opener
from service.engine.owners import Owners
from service.engine.residence import Residence
from service.engine.session import Session
from service.engine.stepping import Stepper
from service.engine.table import Load, Resident
from service.engine.tasks import Tasks
from service.engine.turns import Entry, Outcome

_Place = TypeVar("_Place")


class LocalEngine:
    """Lives in one event loop, from its first call until `close`. The queue and the store are the caller's to
    close, after the engine."""

    def __init__(
        self,
        queue: StepQueue,
        store: SessionStore,
        info: ModelInfo,
        limits: EngineLimits,
        clock: Clock,
        observer: EngineObserver | None = None,
        held: Callable[[], bool] = lambda: True,
    ) -> None:
        """`held`: this worker's lease, if it is one of many; nothing is answered without it."""
        self._store = store
        self._info = info
        self._limits = limits
        self._clock = clock
        self._observer = observer or SilentObserver()
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="s2spp-images")
        self._tasks = Tasks()
        self._owners = Owners(held)
        self._residence = Residence(store, info, limits, clock, self._observer, self._tasks, self._owners)
        self._stepper = Stepper(queue, self._threads, info, limits, self._observer)
        self._opener = Opener(queue, store, self._threads, info, limits, self._residence, self._tasks)

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
        self._tasks.refuse_if_closed()
        opened = await self._opener.open(frame, mask, options, client, idempotency_key)
        self._owners.check_lease()
        self._owners.give(opened.info.session, stream)
        return opened

    def refuse_if_full(self, client: str = "") -> None:
        self._tasks.refuse_if_closed()
        with self._residence.permit(client):
            pass

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
        window = self._limits.window

        def find(state: Session) -> Entry | None:
            state.refuse_if_rolled_back(told_committed)
            return state.find(frame_index, received_through, window)

        resident, entry = await self._place(session, stream, find)
        # From here to the acceptance nothing may wait: the order of the calls is the order of the frames.
        if entry is None:
            if frame_index < resident.session.next_frame:
                # A bad frame's index, tried anew: that it was bad may be stored, and must not be what a crash leaves.
                durability = Durability.STRICT
            entry = self._accept(resident, frame_index, frame, durability)
            entry.of_stream = stream is not None
            had = again or (received_through is not None and frame_index <= received_through)
            if had and resident.session.takes_precedence():
                # A session whose frames came first has all of them stepped first: side by side, all would be late.
                entry.urgent = self._clock()
        outcome = await self._outcome(entry)
        await self._secure(resident, entry, durability)
        self._owners.check_lease()
        if isinstance(outcome, Failure):
            raise error_from_reason(outcome.reason, outcome.message, dict(outcome.metadata))
        return Delivered(outcome, resident.session.committed_frame, resident.session.epoch)

    async def resume(
        self,
        session: SessionId,
        received_through: int | None,
        stream: str | None = None,
        told_committed: int = 0,
    ) -> Resumed:
        await self._residence.verified(session)
        resident = await self._residence.use(session)
        state = resident.session
        state.refuse_if_rolled_back(told_committed)
        answers = () if received_through is None else state.unread(received_through)
        self._owners.check_lease()
        self._owners.give(session, stream)
        self._resume_steps(session)
        self._observer.session_resumed()
        try:
            if answers and state.frames_at_stake >= self._limits.max_uncommitted:
                await resident.commits.through(state.revision)
            self._owners.check_lease()
        except BaseException:
            # It never came to be a stream, and must not keep the session from those that are.
            self._owners.leave(session, stream or "")
            raise
        # A frame that is under way is sent once more, and gets the answer that is being made.
        return Resumed(replace(self._residence.describe(resident), next_frame=state.settled_frame + 1), answers)

    async def leave(self, session: SessionId, stream: str) -> None:
        if not self._owners.leave(session, stream):
            return
        self._resume_steps(session)
        resident = self._residence.get(session)
        if resident is not None and not resident.session.committed:
            resident.commits.start()

    def pause(self, session: SessionId, stream: str) -> bool:
        resident = self._residence.get(session)
        if resident is None or not self._owners.has(session, stream) or not self._residence.in_use(resident):
            return False
        resident.session.paused = True
        return True

    async def release(self, session: SessionId, stream: str | None = None) -> SessionInfo:
        self._owners.check(session, stream)
        self._resume_steps(session)
        return await self._residence.release(await self._residence.find(session))

    def _resume_steps(self, session: SessionId) -> None:
        resident = self._residence.get(session)
        if resident is not None:
            resident.session.paused = False

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
        digest = digest_of(change)  # before its place is looked for: from there to the acceptance nothing may wait
        window = self._limits.window
        resident, accepted = await self._place(
            session, stream, lambda state: state.find_change(frame_index, ordinal, digest, window)
        )
        if accepted is None:
            accepted, before, turn = resident.session.accept_change(digest)
            accepted.work = self._tasks.own(self._stepper.change(resident, accepted, change, ordinal, before, turn))
        problem = None if accepted.work is None else await asyncio.shield(accepted.work)
        if problem is not None:
            raise problem
        if durability is Durability.STRICT:
            await resident.commits.through(accepted.revision)
        self._owners.check_lease()
        return self._residence.describe(resident)

    def committed_frame(self, session: SessionId, stream: str) -> int:
        resident = self._residence.get(session)
        return 0 if resident is None else resident.session.committed_frame

    async def describe(self, session: SessionId) -> SessionInfo:
        """Asking is no use of a session, unless it has to be brought back for it."""
        await self._residence.verified(session)
        resident = await self._residence.find(session)
        self._owners.check_lease()
        return self._residence.describe(resident)

    async def delete(self, session: SessionId) -> None:
        self._tasks.refuse_if_closed()
        await self._residence.delete(session)

    async def ready(self) -> None:
        self._tasks.refuse_if_closed()
        await self._store.ping()

    def load(self) -> Load:
        """How much of the engine is taken."""
        return self._residence.load()

    def models(self) -> Sequence[ModelInfo]:
        return (self._info,)

    def sweep(self) -> None:
        """Commit what pauses, let go what idles or has expired. Runs by itself while sessions are in memory."""
        self._residence.sweep()

    async def close(self) -> None:
        """Take nothing new, answer what is under way, commit every session; as long as that takes."""
        await self._tasks.close()
        await self._residence.close()
        self._threads.shutdown(wait=False)

    async def _place(
        self, session: SessionId, stream: str | None, find: Callable[[Session], _Place]
    ) -> tuple[Resident, _Place]:
        """Where a frame or change belongs: in what is in memory or, where another worker went on meanwhile, stored."""
        self._owners.check(session, stream)
        resident = await self._residence.use(session)
        self._tasks.refuse_if_closed()
        self._owners.check(session, stream)
        try:
            return resident, find(resident.session)
        except (FrameGap, FrameAcknowledged):
            if stream is None and not await self._residence.verified(session):
                return await self._place(session, stream, find)
            raise

    def _accept(self, resident: Resident, frame_index: int, frame: EncodedImage, durability: Durability) -> Entry:
        session, commits = resident.session, resident.commits
        entry, before, turn = session.accept(frame_index)

        async def work() -> Outcome | S2sppError:
            outcome = await self._stepper.answer(resident, entry, frame, before, turn)
            session.last_used = self._clock()
            if durability is Durability.RELAXED:
                commits.start_if_due(self._limits)
            return outcome

        entry.work = self._tasks.own(work())
        return entry

    @staticmethod
    async def _outcome(entry: Entry) -> Outcome:
        """Raises the error of a frame that was not answered, whose index is open again."""
        if entry.outcome is not None:
            return entry.outcome
        assert entry.work is not None, "an entry without an outcome has work under way"
        result = await asyncio.shield(entry.work)
        if isinstance(result, S2sppError):
            raise result
        return result

    async def _secure(self, resident: Resident, entry: Entry, durability: Durability) -> None:
        """Wait until the answer may leave. Raises Unavailable; the answer stays in the outbox then. Raises
        OwnershipLost: it may not leave from here, since another worker has the session."""
        crowded = resident.session.frames_at_stake >= self._limits.max_uncommitted
        if durability is Durability.STRICT or crowded:
            await resident.commits.through(entry.revision)
        if isinstance(resident.commits.gone, OwnershipLost):
            raise resident.commits.gone
