"""The Engine port in one process: sessions in memory, stepped through a queue, kept in a store.

Public calls decide; the parts do: `session` the rules, `stepping` one frame's way, `commit` what is stored
when, `table` who is in memory. Whatever must outlive its caller (a frame, a save, a restore) is a task of the
engine.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from s2spp.geometry import model_size
from service.core.errors import (
    ModelMismatch,
    S2sppError,
    SessionExpired,
    SessionUnknown,
    Unavailable,
    error_from_reason,
)
from service.core.ports import Clock, Delivered, EngineObserver, Opened, Resumed, SessionStore, StepQueue
from service.core.types import (
    Answer,
    Durability,
    EncodedImage,
    Failure,
    ModelInfo,
    ObjectChange,
    SessionId,
    SessionInfo,
    SessionOptions,
    Snapshot,
    State,
)
from service.engine.commit import Committer
from service.engine.doors import Doors
from service.engine.faults import told
from service.engine.idempotency import Keyed, OpeningKeys
from service.engine.limits import EngineLimits
from service.engine.objects import digest_of
from service.engine.observer import SilentObserver
from service.engine.owners import Owners
from service.engine.pixels import read_opening
from service.engine.session import Session
from service.engine.stepping import Stepper
from service.engine.table import Resident, SessionTable
from service.engine.turns import Entry, Outcome

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


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
    ) -> None:
        self._queue = queue
        self._store = store
        self._info = info
        self._limits = limits
        self._clock = clock
        self._observer = observer or SilentObserver()
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="s2spp-images")
        self._table = SessionTable(limits, clock, self._observer)
        self._stepper = Stepper(queue, self._threads, info, limits, self._observer)
        self._doors = Doors()
        self._owners = Owners()
        self._keys = OpeningKeys(store)
        self._running: set[asyncio.Task[Any]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

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
        self._refuse_if_closed()
        if idempotency_key is None:
            with self._table.permit(client):
                opened = await self._own(self._open(frame, mask, options, client))
        else:
            opened = await self._open_once(frame, mask, options, client, idempotency_key)
        self._owners.give(opened.info.session, stream)
        return opened

    async def _open_once(
        self, frame: EncodedImage, mask: EncodedImage, options: SessionOptions, client: str, idempotency_key: str
    ) -> Opened:
        with self._keys.hold(idempotency_key):
            loop = asyncio.get_running_loop()
            keyed = await loop.run_in_executor(self._threads, Keyed.of, idempotency_key, frame, mask, options)
            replay = await self._keys.told(keyed)
            if replay is not None:
                (await self._find(replay.info.session)).session.last_used = self._clock()
                return replay
            with self._table.permit(client):
                return await self._own(self._open(frame, mask, options, client, keyed))

    def refuse_if_full(self, client: str = "") -> None:
        self._refuse_if_closed()
        with self._table.permit(client):
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
    ) -> Delivered:
        resident = await self._find(session)
        # From here to the acceptance nothing may wait: the order of the calls is the order of the frames.
        self._refuse_if_closed()
        self._owners.check(session, stream)
        state = resident.session
        state.refuse_if_rolled_back(told_committed)
        state.last_used = self._clock()
        entry = state.find(frame_index, received_through, self._limits.window)
        if entry is None:
            entry = self._accept(resident, frame_index, frame, durability)
        outcome = await self._outcome(entry)
        await self._secure(resident, entry, durability)
        if isinstance(outcome, Failure):
            raise error_from_reason(outcome.reason, outcome.message, dict(outcome.metadata))
        return Delivered(outcome, state.committed_frame)

    async def resume(
        self,
        session: SessionId,
        received_through: int | None,
        stream: str | None = None,
        told_committed: int = 0,
    ) -> Resumed:
        resident = await self._find(session)
        state = resident.session
        state.refuse_if_rolled_back(told_committed)
        state.last_used = self._clock()
        unread = [] if received_through is None else state.unread(received_through)
        self._owners.give(session, stream)
        self._observer.session_resumed()
        answers: list[Answer | Failure] = []
        for entry in unread:
            try:
                answers.append(await self._outcome(entry))
            except S2sppError:
                break  # this frame and those behind it have not come: the caller sends them again
        if answers and state.frames_at_stake >= self._limits.max_uncommitted:
            await resident.commits.through(state.revision)
        return Resumed(self._describe(resident), tuple(answers))

    async def leave(self, session: SessionId, stream: str) -> None:
        if not self._owners.leave(session, stream):
            return
        resident = self._table.get(session)
        if resident is not None and not resident.session.committed:
            resident.commits.start()

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
        resident = await self._find(session)
        # As for frames: nothing may wait from here to the acceptance; so the digest, about 1 ms per 2 MB, is made here.
        self._refuse_if_closed()
        self._owners.check(session, stream)
        state, digest = resident.session, digest_of(change)
        state.last_used = self._clock()
        accepted = state.find_change(frame_index, ordinal, digest, self._limits.window)
        if accepted is None:
            accepted, before, turn = state.accept_change(digest)
            accepted.work = self._own(self._stepper.change(resident, accepted, change, ordinal, before, turn))
        problem = None if accepted.work is None else await asyncio.shield(accepted.work)
        if problem is not None:
            raise problem
        if durability is Durability.STRICT:
            await resident.commits.through(accepted.revision)
        return self._describe(resident)

    async def describe(self, session: SessionId) -> SessionInfo:
        """Asking is no use of a session, unless it has to be brought back for it."""
        return self._describe(await self._find(session))

    async def delete(self, session: SessionId) -> None:
        self._refuse_if_closed()
        async with self._doors.at(session):
            await self._doors.move(session, self._own(self._delete(session)))

    async def ready(self) -> None:
        self._refuse_if_closed()
        await self._store.ping()

    def models(self) -> Sequence[ModelInfo]:
        return (self._info,)

    def sweep(self) -> None:
        """Commit what pauses, drop what has expired. Runs by itself while sessions are in memory."""
        now = self._clock()
        for resident in self._table:
            session, commits = resident.session, resident.commits
            # One that is being deleted stays until that is done: it goes on if its deletion fails.
            if session.busy or session.id in self._doors:
                continue
            idle_s = now - session.last_used
            if commits.gone is not None:
                self._table.drop(session.id)
            elif not session.committed:
                if idle_s >= self._limits.commit_idle_s:
                    commits.start()
            elif idle_s >= self._limits.idle_timeout_s:
                self._table.drop(session.id)
                self._observer.session_expired()
            else:
                commits.refresh()
                if idle_s >= self._limits.park_idle_s:
                    self._table.drop(session.id)
                    self._observer.session_parked()

    async def close(self) -> None:
        """Take nothing new, answer what is under way, commit every session; as long as that takes."""
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)
        await asyncio.gather(*(self._let_go(resident) for resident in self._table))
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._threads.shutdown(wait=False)

    async def _let_go(self, resident: Resident) -> None:
        session, commits = resident.session, resident.commits
        if commits.gone is None:
            try:
                await commits.through(session.revision)
            except S2sppError as error:
                frame = session.committed_frame
                _log.error("session %s is stored as of frame %d only: %s", session.id, frame, error)
        await commits.quiet()
        self._table.drop(session.id)

    async def _open(
        self,
        frame: EncodedImage,
        mask: EncodedImage,
        options: SessionOptions,
        client: str,
        keyed: Keyed | None = None,
    ) -> Opened:
        loop = asyncio.get_running_loop()
        try:
            opening = await loop.run_in_executor(self._threads, read_opening, frame, mask, self._info, self._limits)
            state = await self._queue.initialise(opening.frame, opening.masks)
            snapshot = Snapshot(
                session=await self._keys.session(keyed),
                model_digest=self._info.digest,
                options=options,
                height=opening.height,
                width=opening.width,
                object_ids=opening.object_ids,
                next_frame=1,
                received_through=0,
                state_changing=self._states(state, constant=False),
                state_constant=self._states(state, constant=True),
                outbox=(),
            )
            await self._store.save(snapshot, self._limits.idle_timeout_s, constant=True)
        except Exception as error:
            raise told(error, "opening a session") from error
        resident = self._take_in(snapshot, client)
        opened = Opened(self._describe(resident), sum(array.nbytes for array in state.values()))
        await self._keys.tell(keyed, opened)
        self._observer.session_opened()
        return opened

    def _accept(self, resident: Resident, frame_index: int, frame: EncodedImage, durability: Durability) -> Entry:
        session, commits = resident.session, resident.commits
        entry, before, turn = session.accept(frame_index)

        async def work() -> Outcome | S2sppError:
            outcome = await self._stepper.answer(resident, entry, frame, before, turn)
            session.last_used = self._clock()
            due = session.frames_at_stake >= self._limits.commit_every
            if due and durability is Durability.RELAXED and commits.gone is None:
                commits.start()
            return outcome

        entry.work = self._own(work())
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
        """Wait until the answer may leave. Raises Unavailable; the answer stays in the outbox then."""
        crowded = resident.session.frames_at_stake >= self._limits.max_uncommitted
        if durability is Durability.STRICT or crowded:
            await resident.commits.through(entry.revision)

    async def _find(self, session: SessionId) -> Resident:
        """From memory, at once; else from the store, once for however many callers."""
        resident = None if session in self._doors else self._table.get(session)
        if resident is None:
            async with self._doors.at(session):
                while (resident := self._table.get(session)) is None:
                    self._refuse_if_closed()
                    await self._doors.move(session, self._own(self._restore(session)))
        if self._table.expires_in_s(resident) == 0:
            raise SessionExpired(f"session {session} has expired; open a new one", session=session)
        return resident

    async def _restore(self, session: SessionId) -> None:
        with self._table.permit():
            try:
                snapshot = await self._store.load(session)
                if snapshot.model_digest != self._info.digest:
                    raise ModelMismatch(
                        f"session {session} belongs to model {snapshot.model_digest}, this server has "
                        f"{self._info.digest}; open a new session, or serve that model",
                        session_model=snapshot.model_digest,
                        server_model=self._info.digest,
                    )
                await self._store.touch(session, self._limits.idle_timeout_s)
            except Exception as error:
                raise told(error, f"restoring session {session}") from error
            self._take_in(snapshot)
            self._observer.session_restored()

    async def _delete(self, session: SessionId) -> None:
        resident = self._table.get(session)
        if resident is not None:
            resident.commits.gone = SessionUnknown(f"session {session} was deleted", session=session)
            await resident.commits.quiet()
        try:
            await self._store.delete(session)
        except (SessionUnknown, SessionExpired):
            self._table.drop(session)
            raise
        except Exception as error:
            if resident is not None:
                resident.commits.gone = None
            raise told(error, f"deleting session {session}") from error
        self._table.drop(session)
        self._observer.session_deleted()

    def _take_in(self, snapshot: Snapshot, client: str = "") -> Resident:
        size = model_size(snapshot.height, snapshot.width, self._info.pixel_budget, self._info.multiple)
        session = Session(snapshot, size, self._clock())
        idle_s = self._limits.idle_timeout_s
        commits = Committer(session, self._store, self._clock, idle_s, self._observer)
        resident = Resident(session, commits, client)
        self._table.add(resident)
        if self._sweeper is None or self._sweeper.done():
            # In a context of its own: what it commits is no part of the call that happened to open the first session.
            self._sweeper = asyncio.create_task(self._keep_sweeping(), context=contextvars.Context())
        return resident

    async def _keep_sweeping(self) -> None:
        while len(self._table):
            await asyncio.sleep(self._limits.sweep_every_s)
            self.sweep()

    def _describe(self, resident: Resident) -> SessionInfo:
        return resident.session.describe(self._info, self._table.expires_in_s(resident))

    def _states(self, state: State, *, constant: bool) -> State:
        return {spec.name: state[spec.name] for spec in self._info.states if spec.constant is constant}

    def _own(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Unavailable("the server is shutting down; try again in a moment")
