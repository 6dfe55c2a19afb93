"""The sessions in memory: brought back from the store, swept, let go. Who asks for one gets it as it is."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from contextlib import AbstractContextManager
from functools import partial

from s2spp.geometry import model_size
from service.core.errors import ModelMismatch, S2sppError, SessionExpired, SessionUnknown, Unavailable
from service.core.ports import Clock, EngineObserver, SessionStore
from service.core.types import ModelInfo, SessionId, SessionInfo, Snapshot
from service.engine.budget import CommitBudget
from service.engine.commit import Committer
from service.engine.doors import Doors
from service.engine.faults import told
from service.engine.limits import EngineLimits
from service.engine.owners import Owners
from service.engine.session import Session
from service.engine.table import Load, Resident, SessionTable
from service.engine.tasks import Tasks

_log = logging.getLogger(__name__)


class Residence:
    """Sessions come in by `open` or `find`, and leave by `delete`, when they idle, or at the end."""

    def __init__(
        self,
        store: SessionStore,
        info: ModelInfo,
        limits: EngineLimits,
        clock: Clock,
        observer: EngineObserver,
        tasks: Tasks,
        owners: Owners,
    ) -> None:
        self._store = store
        self._info = info
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._tasks = tasks
        self._owners = owners
        self._table = SessionTable(limits, clock, observer)
        self._doors = Doors()
        self._budget = CommitBudget(limits.commit_bytes_per_s, clock)
        self._sweeper: asyncio.Task[None] | None = None

    def permit(self, client: str = "") -> AbstractContextManager[None]:
        """Room for one more session while this lasts. Raises Overloaded."""
        return self._table.permit(client)

    def get(self, session: SessionId) -> Resident | None:
        """Only from memory; None while it is being deleted or brought back."""
        return None if session in self._doors else self._table.get(session)

    def describe(self, resident: Resident) -> SessionInfo:
        return resident.session.describe(self._info, self._table.expires_in_s(resident))

    def in_use(self, resident: Resident) -> bool:
        """It counts as busy in `load`."""
        return not self._table.may_go(resident.session)

    def load(self) -> Load:
        return self._table.load()

    async def find(self, session: SessionId) -> Resident:
        """From memory, at once; else from the store, once for however many callers."""
        resident = None if session in self._doors else self._table.get(session)
        if resident is None:
            async with self._doors.at(session):
                while (resident := self._table.get(session)) is None:
                    self._tasks.refuse_if_closed()
                    await self._doors.move(session, self._tasks.own(self._restore(session)))
        if self._table.expires_in_s(resident) == 0:
            raise SessionExpired(f"session {session} has expired; open a new one", session=session)
        return resident

    async def use(self, session: SessionId) -> Resident:
        """`find`, for what pushes the expiry on."""
        resident = await self.find(session)
        resident.session.last_used = self._clock()
        return resident

    async def release(self, resident: Resident) -> SessionInfo:
        """Raises what kept it from being stored; it stays in memory then."""
        await resident.commits.through(resident.session.revision)
        info = self.describe(resident)
        if not resident.session.busy and resident.session.committed:
            self._table.drop(resident.session.id)
        return info

    async def verified(self, session: SessionId) -> bool:
        """False: another worker went on with what is in memory here, so it is dropped; `find` brings back how far."""
        resident = self._table.get(session)
        if resident is None:
            return True
        try:
            held = await self._store.held(session)
        except Unavailable:
            return True  # as far as anybody knows; its saves tell
        except Exception as error:
            raise told(error, f"asking whose session {session} is") from error
        if not held:
            resident.commits.lose()
        return held

    async def delete(self, session: SessionId) -> None:
        async with self._doors.at(session):
            await self._doors.move(session, self._tasks.own(self._delete(session)))

    def open(self, snapshot: Snapshot) -> Resident:
        """A session that begins, and is stored."""
        resident = self._take_in(snapshot)
        self._budget.spend(snapshot.stored_bytes(constant=True))
        self._observer.session_opened()
        return resident

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
                parking = idle_s >= self._limits.park_idle_s
                commits.refresh(now=parking)
                if parking and commits.fresh:
                    self._table.drop(session.id)
                    self._observer.session_parked()

    async def close(self) -> None:
        """Commit every session, however long that takes."""
        await asyncio.gather(*(self._let_go(resident) for resident in self._table))
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _take_in(self, snapshot: Snapshot) -> Resident:
        size = model_size(snapshot.height, snapshot.width, self._info.pixel_budget, self._info.multiple)
        session = Session(snapshot, size, self._clock())
        idle_s, lost = self._limits.idle_timeout_s, partial(self._owners.lose, session.id)
        commits = Committer(session, self._store, self._clock, idle_s, self._budget, self._observer, lost)
        resident = Resident(session, commits, snapshot.client)
        self._table.add(resident)
        if self._sweeper is None or self._sweeper.done():
            # In a context of its own: what it commits is no part of the call that happened to open the first session.
            self._sweeper = asyncio.create_task(self._keep_sweeping(), context=contextvars.Context())
        return resident

    async def _let_go(self, resident: Resident) -> None:
        session, commits = resident.session, resident.commits
        if commits.gone is None:
            try:
                await commits.through(session.revision)
            except S2sppError as error:
                frame = session.committed_frame
                _log.error("session %s is stored as of frame %d only: %s", session.id, frame, error.fault)
        await commits.quiet()
        self._table.drop(session.id)

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
            self._table.make_room_for(snapshot.client)
            self._take_in(snapshot).session.may_be_lost = self._limits.max_uncommitted + self._limits.window
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

    async def _keep_sweeping(self) -> None:
        while len(self._table):
            await asyncio.sleep(self._limits.sweep_every_s)
            self.sweep()
