"""Who comes or goes: a session is restored or deleted by one at a time, and callers pass as they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.core.types import SessionId


@dataclass
class _Door:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Doors:
    """A fair lock for each session that is being restored or deleted; the others have none. The restore or delete
    itself goes on when its caller departs."""

    def __init__(self) -> None:
        self._doors: dict[SessionId, _Door] = {}
        self._moving: dict[SessionId, asyncio.Task[None]] = {}

    def __contains__(self, session: SessionId) -> bool:
        """Somebody is at this session's door, so that others have to queue up."""
        return session in self._doors

    @asynccontextmanager
    async def at(self, session: SessionId) -> AsyncIterator[None]:
        """One caller at a time, and none before what a departed one left under way has ended.
        Leaving does not wait: what follows comes before the next in the queue."""
        door = self._doors.setdefault(session, _Door())
        door.users += 1
        try:
            async with door.lock:
                if session in self._moving:
                    await asyncio.wait({self._moving[session]})
                yield
        finally:
            door.users -= 1
            if not door.users:
                del self._doors[session]

    async def move(self, session: SessionId, moving: asyncio.Task[None]) -> None:
        """Wait, at the door, for its restore or delete."""
        self._moving[session] = moving
        moving.add_done_callback(lambda _: self._moving.pop(session))
        await asyncio.shield(moving)
