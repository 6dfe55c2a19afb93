"""The recurrent state of objects, wherever a runtime keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[np.generic]]


class Rows(Protocol):
    """State tensors of N objects by name, each [N, ...] in the manifest's type; on the host or on a device. Nobody
    writes to them after they were made, so a snapshot may hold on to them while the session goes on."""

    @property
    def count(self) -> int:
        """N."""
        ...

    @property
    def nbytes(self) -> int: ...

    def take(self, rows: Sequence[int]) -> Rows:
        """Those rows, in that order."""
        ...

    def join(self, others: Sequence[Rows]) -> Rows:
        """These rows, and behind them the others'."""
        ...

    def tensors(self) -> Tensors:
        """On the host. Blocks where they are on a device, and may be called in any thread."""
        ...


class HostRows(dict[str, NDArray[np.generic]]):
    """Rows in this process's memory."""

    @property
    def count(self) -> int:
        return len(next(iter(self.values()), ()))

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.values())

    def take(self, rows: Sequence[int]) -> HostRows:
        """Of a range, views: they keep all rows alive."""
        chosen = slice(rows.start, rows.stop, rows.step) if isinstance(rows, range) else list(rows)
        return HostRows((name, tensor[chosen]) for name, tensor in self.items())

    def join(self, others: Sequence[Rows]) -> HostRows:
        parts = [self, *(other.tensors() for other in others)]
        return HostRows((name, np.concatenate([part[name] for part in parts])) for name in self)

    def tensors(self) -> Tensors:
        return self


@dataclass(frozen=True)
class State:
    """All that the next step of N objects goes on from. `constant`: what no step changes."""

    changing: Rows
    constant: Rows

    @property
    def objects(self) -> int:
        return self.changing.count

    @property
    def nbytes(self) -> int:
        return self.changing.nbytes + self.constant.nbytes

    def take(self, rows: Sequence[int]) -> State:
        return State(self.changing.take(rows), self.constant.take(rows))

    def join(self, others: Sequence[State]) -> State:
        return State(
            self.changing.join([other.changing for other in others]),
            self.constant.join([other.constant for other in others]),
        )

    def on_host(self) -> State:
        """Blocks as `Rows.tensors` does."""
        return State(HostRows(self.changing.tensors()), HostRows(self.constant.tensors()))
