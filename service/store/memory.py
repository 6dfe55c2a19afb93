"""Sessions in this process's own memory: for commands that run the engine in process, and for tests."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from service.core.ports import Clock
from service.core.state import State
from service.core.types import SessionId, Snapshot
from service.store.absence import SEEN_FOR_S, absent


@dataclass
class _Kept:
    """`snapshot` None: the session has expired; that it was there is remembered for a day."""

    snapshot: Snapshot | None
    until: float


class MemorySessionStore:
    """The SessionStore port in memory: nothing outlives the process. Snapshots are kept as they are, their states on
    the host, since nobody writes to their arrays."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._sessions: dict[SessionId, _Kept] = {}
        self._notes: dict[str, tuple[bytes, float]] = {}

    async def save(self, snapshot: Snapshot, ttl_s: float, *, constant: bool, existing: bool = False) -> int:
        if existing or not constant:
            kept = self._get(snapshot.session)
            snapshot = (
                snapshot if constant else replace(snapshot, state=State(snapshot.state.changing, kept.state.constant))
            )
        snapshot = replace(snapshot, state=snapshot.state.on_host())
        self._sessions[snapshot.session] = _Kept(snapshot, self._clock() + ttl_s)
        return 1

    async def load(self, session: SessionId) -> Snapshot:
        return replace(self._get(session), epoch=1)

    async def held(self, session: SessionId) -> bool:
        return session in self._sessions

    async def touch(self, session: SessionId, ttl_s: float) -> None:
        self._get(session)
        self._sessions[session].until = self._clock() + ttl_s

    async def delete(self, session: SessionId) -> None:
        self._get(session)
        del self._sessions[session]

    async def note(self, name: str, value: bytes, ttl_s: float, *, new: bool = False) -> bytes:
        kept = await self.recall(name)
        if new and kept is not None:
            return kept
        self._notes[name] = value, self._clock() + ttl_s
        return value

    async def recall(self, name: str) -> bytes | None:
        now = self._clock()
        self._notes = {each: note for each, note in self._notes.items() if note[1] > now}
        return self._notes[name][0] if name in self._notes else None

    async def ping(self) -> None:
        """Always there."""

    def _get(self, session: SessionId) -> Snapshot:
        self._forget_expired()
        kept = self._sessions.get(session)
        if kept is None or kept.snapshot is None:
            raise absent(session, expired=kept is not None)
        return kept.snapshot

    def _forget_expired(self) -> None:
        now = self._clock()
        for session, kept in list(self._sessions.items()):
            if kept.until + SEEN_FOR_S <= now:
                del self._sessions[session]
            elif kept.until <= now:
                kept.snapshot = None
