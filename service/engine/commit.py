"""Commits of one session: one save at a time, each covering everything settled when it began.

So any number of callers that wait for durability share saves, and a slow store is never asked twice at once.
Knows the store port and the session; nothing of frames, queues or callers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from service.core.errors import OwnershipLost, S2sppError, SessionExpired, SessionUnknown
from service.core.ports import Clock, CommitResult, EngineObserver, SessionStore
from service.core.types import Snapshot
from service.engine.budget import CommitBudget
from service.engine.faults import told
from service.engine.limits import EngineLimits
from service.engine.session import Session

_log = logging.getLogger(__name__)
_SHORTEST_TTL_S = 1.0


class Committer:
    """Keeps one session stored, and its time to live there in step with its use here."""

    def __init__(
        self,
        session: Session,
        store: SessionStore,
        clock: Clock,
        idle_timeout_s: float,
        budget: CommitBudget,
        observer: EngineObserver,
        lost: Callable[[], None],
    ) -> None:
        """`lost`: told once another worker has the session."""
        self.gone: S2sppError | None = None
        """Why the session has no place in the store any more; nothing is saved then."""
        self._session = session
        self._store = store
        self._clock = clock
        self._idle_timeout_s = idle_timeout_s
        self._budget = budget
        self._observer = observer
        self._lost = lost
        self._covers = 0
        self._saving: asyncio.Task[S2sppError | None] | None = None
        self._touching: asyncio.Task[None] | None = None
        self._refreshed = session.last_used  # use that the store's expiry knows of
        self._failing = False  # the save before failed, too: said once
        self._oldest: float | None = None  # when the first frame was answered that no save covers

    async def through(self, revision: int) -> None:
        """Returns once the store has `revision`. Raises what kept the save that would have covered it."""
        while self._session.committed_revision < revision:
            if self.gone is not None:
                raise self.gone
            saving = self.start()
            covers = self._covers
            error = await asyncio.shield(saving)
            if error is not None and covers >= revision:
                raise error

    def answered(self, at: float) -> None:
        """A frame was settled at that reading of `time.perf_counter`."""
        if self._oldest is None:
            self._oldest = at

    def start(self) -> asyncio.Task[S2sppError | None]:
        """The save under way, or a new one. It belongs to the engine: who awaits it shields it."""
        if self._saving is None or self._saving.done():
            self._covers = self._session.revision
            constant = self._session.objects_revision > self._session.committed_revision
            oldest, self._oldest = self._oldest, None
            self._saving = asyncio.create_task(self._save(self._session.snapshot(), constant, self._covers, oldest))
        return self._saving

    def start_if_due(self, limits: EngineLimits) -> None:
        """Every `commit_every` frames, and later where that takes too many bytes."""
        at_stake = self._session.frames_at_stake
        latest = max(limits.commit_every, limits.max_uncommitted // 2)
        if self.gone is None and at_stake >= limits.commit_every and (self._budget.allows or at_stake >= latest):
            self.start()

    def lose(self) -> None:
        """Another worker has the session, or it is deleted: what is in memory here is of the past."""
        session = self._session.id
        self.gone = OwnershipLost(f"session {session} was taken by another worker", session=session, by="worker")
        self._lost()

    @property
    def fresh(self) -> bool:
        """The store's expiry knows of the last use."""
        return self._session.last_used <= self._refreshed

    def refresh(self, *, now: bool = False) -> None:
        """Push the store's expiry on in the background, if the session was used well after the last time; `now`: or at
        all."""
        used_since = self._session.last_used - self._refreshed
        idle = self._touching is None or self._touching.done()
        if idle and self.gone is None and used_since > (0 if now else self._idle_timeout_s / 4):
            self._touching = asyncio.create_task(self._touch())

    async def quiet(self) -> None:
        """Returns when nothing of this session is on its way to the store."""
        running = {task for task in (self._saving, self._touching) if task is not None and not task.done()}
        if running:
            await asyncio.wait(running)

    async def _save(self, snapshot: Snapshot, constant: bool, revision: int, oldest: float | None) -> S2sppError | None:
        began = time.perf_counter()
        error = await self._ask(self._store.save(snapshot, self._ttl_s(), constant=constant, existing=True))
        ended = time.perf_counter()
        result: CommitResult = "refused" if isinstance(error, OwnershipLost) else "failed" if error else "stored"
        self._observer.commit_ended(ended - began, result, None if oldest is None else ended - oldest)
        if error is None:
            self._budget.spend(snapshot.stored_bytes(constant=constant))
            self._session.commit(revision)
        else:
            self._oldest = self._oldest if oldest is None else oldest
            named = {"session": snapshot.session}  # whoever started the save may be about another one
            level = logging.DEBUG if self._failing else logging.WARNING
            _log.log(level, "session %s could not be committed: %s", snapshot.session, error.fault, extra=named)
        self._failing = error is not None
        return error

    async def _touch(self) -> None:
        await self._ask(self._store.touch(self._session.id, self._ttl_s()))

    async def _ask(self, request: Awaitable[object]) -> S2sppError | None:
        """What the store answered: nothing where it did as asked."""
        used = self._session.last_used
        try:
            await request
        except (SessionUnknown, SessionExpired, OwnershipLost) as error:
            self.gone = error
            if isinstance(error, OwnershipLost):
                self._lost()
            return error
        except Exception as error:
            return told(error, "talking to the session store")
        self._refreshed = used
        return None

    def _ttl_s(self) -> float:
        """What is left of the idle timeout: the store forgets when the engine does, however late the save."""
        left = self._session.last_used + self._idle_timeout_s - self._clock()
        return max(left, _SHORTEST_TTL_S)
