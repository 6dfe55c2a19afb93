"""Whether all cores take a run through faster than one does, judged by the runs of late."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from statistics import median

# What counts of either way: the middle one of so many runs.
_RUNS = 5
# One in so many runs goes the way that seemed slower.
_TRY_NARROW, _TRY_WIDE = 50, 10
# Kinds of runs that are remembered.
_KINDS = 16


class Pace:
    """A wide run's threads wait for each other at every operator. Where other programs want the cores, it can take
    several times as long as a run on one core, which waits for nobody."""

    def __init__(self) -> None:
        self._ms: dict[Hashable, dict[bool, deque[float]]] = {}
        self._runs: dict[Hashable, int] = {}

    def wide(self, kind: Hashable) -> bool:
        """How the next run of this `kind` (such take equally long) is to go."""
        ms = self._ms.get(kind)
        faster = ms is None or not ms[False] or not ms[True] or median(ms[True]) < median(ms[False])
        count = self._runs[kind] = self._runs.get(kind, 0) + 1
        return faster != (count % (_TRY_NARROW if faster else _TRY_WIDE) == 0)

    def ran(self, kind: Hashable, wide: bool, ms: float) -> None:
        if kind not in self._ms and len(self._ms) == _KINDS:
            oldest = next(iter(self._ms))
            del self._ms[oldest], self._runs[oldest]
        of_kind = self._ms.setdefault(kind, {way: deque(maxlen=_RUNS) for way in (True, False)})
        of_kind[wide].append(ms)
