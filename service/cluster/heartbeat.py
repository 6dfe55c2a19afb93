"""A worker's sign of life, and what it may do by it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from service.core.cancelling import cancelled
from service.core.errors import Unavailable
from service.core.ports import Clock
from service.core.registry import LEASE_S, WorkerRegistry, WorkerState

_log = logging.getLogger(__name__)
EVERY_S = 0.5


class Heartbeat:
    """Tells the registry every half second how the worker is. `held`: others take it for alive, counted from before
    the last sign of life left; so it is over here before it is over there."""

    def __init__(self, registry: WorkerRegistry, state: Callable[[], WorkerState], clock: Clock) -> None:
        self._registry = registry
        self._state = state
        self._clock = clock
        self._until = 0.0
        self._beats = 0
        self._beating: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        return self._clock() < self._until

    async def start(self) -> None:
        """The first one has arrived when this returns. Raises Unavailable."""
        await self.beat()
        self._beating = asyncio.create_task(self._keep_beating())

    async def beat(self) -> None:
        """One now. Raises Unavailable."""
        sent = self._clock()
        self._beats += 1
        await self._registry.beat(replace(self._state(), beat=self._beats))
        self._until = sent + LEASE_S

    async def stop(self) -> None:
        """The last one says that the worker takes nothing more: its silence is no accident then."""
        if self._beating is None:
            return
        await cancelled(self._beating)
        with suppress(Unavailable):
            await self._registry.beat(replace(self._state(), draining=True, beat=self._beats + 1))

    async def _keep_beating(self) -> None:
        silent, pause_s = False, EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = EVERY_S
            try:
                await self.beat()
                if silent:
                    _log.info("the registry hears of this worker again")
                silent = False
                if not self.held:
                    pause_s = 0.0  # it took so long to arrive that the lease is over again
            except Unavailable:
                if not silent:
                    _log.warning("the registry does not hear of this worker, which answers nothing after %g s", LEASE_S)
                silent = True
            except Exception:
                _log.exception("a sign of life failed; the next one is tried")
