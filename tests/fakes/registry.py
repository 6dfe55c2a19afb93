"""A registry in memory, for workers and gateways of one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from service.core.errors import Unavailable
from service.core.registry import Owner, WorkerState
from service.core.types import SessionId


def worker(name: str, sessions: int = 0, *, busy: int = 0, capacity: int = 8, digest: str = "m1") -> WorkerState:
    return WorkerState(name, f"{name}:50051", sessions, busy, capacity, digest)


class FakeRegistry:
    """The WorkerRegistry port. `away` True: every call raises Unavailable."""

    def __init__(self, *states: WorkerState) -> None:
        self.states = {state.worker: state for state in states}
        self.owners: dict[str, Owner] = {}
        self.away = False
        self.beats = 0

    async def beat(self, state: WorkerState) -> None:
        self._reach()
        self.beats += 1
        self.states[state.worker] = state

    async def workers(self) -> Sequence[WorkerState]:
        self._reach()
        return list(self.states.values())

    async def owner(self, session: SessionId) -> Owner | None:
        self._reach()
        return self.owners.get(session)

    def drain(self, name: str) -> None:
        self.states[name] = replace(self.states[name], draining=True)

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("the registry is away")
