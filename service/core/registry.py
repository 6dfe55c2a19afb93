"""Which workers there are, and whose a session is: the ports between workers, gateways and the store they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.core.types import SessionId

LEASE_S = 3.0
"""A worker that was not heard of for so long is taken for dead, and takes itself for it."""


@dataclass(frozen=True)
class WorkerState:
    """What a worker tells of itself. `worker`: a name that no other process ever has. `address`: "host:port" of its
    gRPC. `sessions`: in its memory. `busy`: those that cannot make room. `capacity`: the most it takes. `model_digest`:
    what it serves. `draining`: it ends, or has ended, and takes nothing new. `beat`: so manieth sign of life."""

    worker: str
    address: str
    sessions: int
    busy: int
    capacity: int
    model_digest: str
    draining: bool = False
    beat: int = 0

    @property
    def full(self) -> bool:
        return self.busy >= self.capacity


@dataclass(frozen=True)
class Owner:
    """`epoch`: rises with every change of hands."""

    worker: str
    epoch: int
    model_digest: str


class WorkerRegistry(Protocol):
    """Every method raises Unavailable when the store cannot be reached."""

    async def beat(self, state: WorkerState) -> None:
        """The worker is alive, and so. It counts as alive for LEASE_S from when the store hears of it."""
        ...

    async def workers(self) -> Sequence[WorkerState]:
        """Those that are alive."""
        ...

    async def owner(self, session: SessionId) -> Owner | None:
        """Whose the session is, or was last; None: it was never there, or long ago."""
        ...


class ClusterObserver(Protocol):
    """What telemetry hears of a gateway. Called on the event loop: must return at once and must not raise."""

    def stream_moved(self, sent_again: int) -> None:
        """A stream went on at another worker, which was sent so many frames and changes once more."""
        ...
