"""Workers that have more streams than others hand some over: after one was added, or came back after a crash, those
that live for hours would else stay where they are."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from service.core.errors import Unavailable
from service.core.registry import WorkerRegistry, WorkerState

_log = logging.getLogger(__name__)
_EVERY_S = 0.5
_TOLERATED = 0.2
# What is compared are means of so many readings: a slow camera's session is in use in some of them only.
_READINGS = 12
# So many handed over within those readings, and none the fewer here.
_IN_VAIN, _FEW = 5, 4
_RESTING = 120  # readings: a minute


async def keep_balance(
    registry: WorkerRegistry, state: Callable[[], WorkerState], hand_over: Callable[[], bool]
) -> None:
    """One stream after the other, for as long as there is another worker with fewer. `hand_over`: sends one away, to
    where the gateways find most room."""
    given: deque[bool] = deque(maxlen=_READINGS)
    readings: dict[str, deque[int]] = {}
    resting = handed = 0
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            workers = await registry.workers()
        except Unavailable:
            continue  # its heart says so
        me = state()
        heard = [*(each for each in workers if each.worker != me.worker), me]
        readings = {each.worker: readings.get(each.worker, deque(maxlen=_READINGS)) for each in heard}
        for each in heard:
            readings[each.worker].append(each.busy)
        *others, me = (
            replace(each, busy=round(fmean(readings[each.worker])))
            for each in heard
            if each is me or len(readings[each.worker]) >= _FEW  # gateways have to meet it first
        )
        mine = list(readings[me.worker])
        if sum(given) >= _IN_VAIN and sum(mine[-_FEW:]) >= sum(mine[:_FEW]):
            _log.warning(
                "%d streams were handed over and came back: gateways may not reach the worker with the fewest; "
                "no more are for a minute",
                sum(given),
            )
            resting = _RESTING
            given.clear()
        resting = max(0, resting - 1)
        gives = not resting and has_too_many(me, others, sum(given)) and hand_over()
        given.append(gives)
        handed += gives
        if handed and not any(given):
            now = ", ".join([f"{me.busy} here", *(f"{each.busy} at worker {each.worker}" for each in others)])
            _log.info("streams handed over: %d; sessions in use now: %s", handed, now)
            handed = 0


def has_too_many(me: WorkerState, workers: Sequence[WorkerState], given: int = 0) -> bool:
    """Another worker of the same model has fewer sessions, by a fifth of the mean and by two at least: one that moves
    then makes nobody the next to send it on. `given`: those that were handed over since, of which the numbers do not
    know yet."""
    others = [each for each in workers if each.worker != me.worker and each.model_digest == me.model_digest]
    willing = [each.busy for each in others if not each.draining and not each.full]
    if me.draining or not willing:
        return False
    mean = (me.busy + sum(each.busy for each in others)) / (1 + len(others))
    return me.busy - min(willing) - 2 * given >= max(2, _TOLERATED * mean)
