"""The sessions in memory, and who may come in: a permit is taken before any work is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.core.errors import Overloaded
from service.core.ports import Clock, EngineObserver
from service.core.types import SessionId
from service.engine.commit import Committer
from service.engine.limits import EngineLimits
from service.engine.session import Session


@dataclass(frozen=True, eq=False)
class Resident:
    """A session in memory, with what keeps it stored."""

    session: Session
    commits: Committer


class SessionTable:
    """At most `max_sessions` sessions, permits included."""

    def __init__(self, limits: EngineLimits, clock: Clock, observer: EngineObserver) -> None:
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._residents: dict[SessionId, Resident] = {}
        self._permits = 0

    def __len__(self) -> int:
        return len(self._residents)

    def __iter__(self) -> Iterator[Resident]:
        return iter(list(self._residents.values()))

    def get(self, session: SessionId) -> Resident | None:
        """None, too, for one that the store no longer has."""
        resident = self._residents.get(session)
        if resident is not None and resident.commits.gone is not None:
            self.drop(session)
            return None
        return resident

    def add(self, resident: Resident) -> None:
        self._residents[resident.session.id] = resident
        self._observer.sessions_in_memory(len(self))

    def drop(self, session: SessionId) -> None:
        self._residents.pop(session, None)
        self._observer.sessions_in_memory(len(self))

    def expires_in_s(self, resident: Resident) -> float:
        left = resident.session.last_used + self._limits.idle_timeout_s - self._clock()
        return self._limits.idle_timeout_s if resident.session.busy else max(0.0, left)

    @contextmanager
    def permit(self) -> Iterator[None]:
        """Room for one more session while this lasts. Raises Overloaded."""
        while len(self) + self._permits >= self._limits.max_sessions:
            self._evict_one()
        self._permits += 1
        try:
            yield
        finally:
            self._permits -= 1

    def _evict_one(self) -> None:
        """The least recently used of those that are stored and idle: its next frame brings it back."""
        now, pause = self._clock(), self._limits.evict_idle_s
        idle = sorted((r.session for r in self if not r.session.busy), key=lambda session: session.last_used)
        for session in idle:
            if session.committed and now - session.last_used >= pause:
                return self.drop(session.id)
        wait_s = max(0.1, idle[0].last_used + pause - now) if idle else 1.0
        raise Overloaded(
            f"{self._limits.max_sessions} sessions are served now, which is all this server takes; "
            "try again shortly, or delete one",
            retry_after_s=wait_s,
        )
