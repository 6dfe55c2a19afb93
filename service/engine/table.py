"""The sessions in memory, and who may come in: a permit is taken before any work is done."""

from __future__ import annotations

from collections import Counter
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
    client: str = ""
    """Who opened it; "" when that is not known."""


@dataclass(frozen=True)
class Load:
    """`sessions`: in memory, or about to be. `busy`: those of them that could not make room now."""

    sessions: int
    busy: int


class SessionTable:
    """At most `max_sessions` sessions, permits included, and of one client at most `max_client_sessions`."""

    def __init__(self, limits: EngineLimits, clock: Clock, observer: EngineObserver) -> None:
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self._residents: dict[SessionId, Resident] = {}
        self._permits: Counter[str] = Counter()

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

    def load(self) -> Load:
        coming = self._permits.total()
        return Load(len(self) + coming, coming + sum(not self.may_go(each.session) for each in self))

    @contextmanager
    def permit(self, client: str = "") -> Iterator[None]:
        """Room for one more session, of `client` where that is named, while this lasts. Raises Overloaded."""
        limits = self._limits
        self.make_room_for(client)
        while len(self) + self._permits.total() >= limits.max_sessions:
            self._evict_one(f"{limits.max_sessions} sessions are served now, which is all this server takes")
        self._permits[client] += 1
        try:
            yield
        finally:
            self._permits[client] -= 1
            self._permits += Counter()  # forgets those that have none

    def make_room_for(self, client: str) -> None:
        """For one more of that client's, where that is named. Raises Overloaded."""
        most = self._limits.max_client_sessions
        while client and most and sum(each.client == client for each in self) + self._permits[client] >= most:
            self._evict_one(
                f"this client has as many sessions here as one may have ({most}, S2SPP_MAX_SESSIONS_PER_CLIENT)", client
            )

    def may_go(self, session: Session) -> bool:
        idle_s = self._clock() - session.last_used
        return not session.busy and session.committed and idle_s >= self._limits.evict_idle_s

    def _evict_one(self, full: str, client: str | None = None) -> None:
        """The least recently used of those that are stored and idle: its next frame brings it back."""
        now, pause = self._clock(), self._limits.evict_idle_s
        residents = [each for each in self if not each.session.busy and client in (None, each.client)]
        idle = sorted((each.session for each in residents), key=lambda session: session.last_used)
        for session in idle:
            if self.may_go(session):
                return self.drop(session.id)
        wait_s = max(0.1, idle[0].last_used + pause - now) if idle else 1.0
        whose = {} if client is None else {"limit": "client"}
        raise Overloaded(f"{full}; try again shortly, or delete one", retry_after_s=wait_s, **whose)
