"""Whether all cores take a run through faster than one does, judged by the runs of late."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from statistics import median

# What counts of either way: the middle one of so many runs.
_RUNS = 5
# One in so many runs goes the way that seemed slower, and so manieth run of all goes narrow.
_TRY_NARROW, _TRY_WIDE, _FIRST_NARROW = 50, 10, 3
# Kinds of runs that are remembered.
_KINDS = 32


@dataclass
class _Kind:
    runs: int = 0
    promising: bool = False  # the last wide run was the faster way
    wide_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_RUNS))
    narrow_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_RUNS))

    @property
    def wide_is_faster(self) -> bool:
        return not self.wide_ms or not self.narrow_ms or median(self.wide_ms) < median(self.narrow_ms)


class Pace:
    """A wide run's threads wait for each other at every operator. Where other programs want the cores, it can take
    several times as long as a run on one core, which waits for nobody."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}

    def wide(self, kind: Hashable) -> bool:
        """How the next run of this `kind` (such take equally long) is to go."""
        known = self._known(kind)
        known.runs += 1
        if known.wide_is_faster:
            return known.runs % _TRY_NARROW != 0 and known.runs != _FIRST_NARROW
        # One that went well is tried again at once: what was in the way may be gone.
        return known.promising or known.runs % _TRY_WIDE == 0

    def ran(self, kind: Hashable, wide: bool, ms: float) -> None:
        known = self._known(kind)
        (known.wide_ms if wide else known.narrow_ms).append(ms)
        known.promising = wide and bool(known.narrow_ms) and ms < median(known.narrow_ms)

    def _known(self, kind: Hashable) -> _Kind:
        if kind not in self._kinds and len(self._kinds) == _KINDS:
            del self._kinds[next(iter(self._kinds))]  # the oldest
        return self._kinds.setdefault(kind, _Kind())
