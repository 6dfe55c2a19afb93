"""How the cores are shared out: all of them for one run, or one for each of several side by side.

Runs side by side do more in the same time: nobody waits for anybody's threads. All cores for one run is for who has no
company, and would leave the other cores idle.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import ceil

from service.batching.pace import Pace

# Of a run, what more cores do not shorten: two take 0.62 of the time of one.
_SERIAL = 0.24
# With so few lanes two senders in turns, each with all cores, are slower than side by side.
_FEW = 3
# So many times in a row who came found nothing else to do, until it counts as alone.
_QUIET = 3


class Cores:
    """`lanes`: so many runs at a time, if none is wide. `max_objects`: in a run."""

    def __init__(self, lanes: int, max_objects: int) -> None:
        self._lanes = lanes
        self._max_objects = max_objects
        self._faster = 1 / (_SERIAL + (1 - _SERIAL) / lanes)  # a wide run than a narrow one
        self._quiet = _QUIET
        self._pace = Pace()

    def came(self, *, busy: bool) -> None:
        """Somebody has work. `busy`: somebody else's is under way."""
        self._quiet = 0 if busy else min(self._quiet + 1, _QUIET)

    def may_be_wide(self, waiting: int) -> bool:
        """`waiting`: runs that could begin now, the one that asks included."""
        return self._lanes == 1 or (waiting < self._faster and (self._lanes > _FEW or self._alone))

    def wide(self, kind: Hashable) -> bool:
        """Of a run that may: whether it is to be. `kind`: such take equally long."""
        return self._lanes == 1 or self._pace.wide(kind)

    def ran(self, kind: Hashable, *, wide: bool, ms: float) -> None:
        """A run that might have been wide."""
        self._pace.ran(kind, wide, ms)

    def waves(self, objects: int, waiting: int, *, urgent: bool) -> list[list[range]]:
        """The rows of a frame's objects in runs side by side, and such waves one after the other. `waiting`: other
        runs. What is urgent stays together: what comes after its parts would lose its place meanwhile."""
        apart = not (self._alone or urgent or waiting >= self._lanes or objects < self._faster)
        beside = self._lanes if apart else 1
        runs = beside * ceil(objects / (beside * self._max_objects))
        size = ceil(objects / runs)
        rows = [range(at, min(at + size, objects)) for at in range(0, objects, size)]
        return [rows[at : at + beside] for at in range(0, len(rows), beside)]

    @property
    def _alone(self) -> bool:
        return self._quiet == _QUIET
