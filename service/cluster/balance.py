"""Workers that have more streams than others hand some over: after one was added, or came back after a crash, those
that live for hours would else stay where they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from service.core.errors import Unavailable
from service.core.registry import WorkerRegistry, WorkerState

_EVERY_S = 0.5
_TOLERATED = 0.2


async def keep_balance(
    registry: WorkerRegistry, state: Callable[[], WorkerState], hand_over: Callable[[], bool]
) -> None:
    """One stream after the other, for as long as there is another worker with fewer. `hand_over`: sends one away, to
    where the gateways find most room."""
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            workers = await registry.workers()
        except Unavailable:
            continue  # its heart says so
        if has_too_many(state(), workers):
            hand_over()


def has_too_many(me: WorkerState, workers: Sequence[WorkerState]) -> bool:
    """Another worker of the same model has fewer sessions, by a fifth of the mean and by two at least: one that moves
    then makes nobody the next to send it on."""
    others = [each for each in workers if each.worker != me.worker and each.model_digest == me.model_digest]
    willing = [each.busy for each in others if not each.draining and not each.full]
    if me.draining or not willing:
        return False
    mean = (me.busy + sum(each.busy for each in others)) / (1 + len(others))
    return me.busy - min(willing) >= max(2, _TOLERATED * mean)
