"""Rows of state in the memory of a device: handed out, copied there and back, and free again once nobody has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.core.errors import Overloaded
from service.core.state import HostRows, Rows, Tensors
from service.runtime.graphs import Provider, load_graph, session_options

_HERE = Path(__file__).parent


class Copier:
    """Rows out of a tensor on the device and into one, by two graphs (model/export/row_graphs.py). Any thread."""

    def __init__(self, provider: Provider) -> None:
        options = session_options(1)
        self.device = provider
        self._gather = load_graph(_HERE / "gather.onnx", options, provider)
        self._scatter = load_graph(_HERE / "scatter.onnx", options, provider)

    def read(self, pool: ort.OrtValue, rows: ort.OrtValue, device: str) -> ort.OrtValue:
        """pool[rows], `rows` [N], on `device`. Not to be kept: it holds on to the pool's tensor."""
        binding = self._gather.io_binding()
        binding.bind_ortvalue_input("pool", pool)
        binding.bind_ortvalue_input("rows", rows)
        binding.bind_output("values", device)
        self._gather.run_with_iobinding(binding)
        (values,) = binding.get_outputs()
        return values

    def write(self, pool: ort.OrtValue, rows: ort.OrtValue, values: ort.OrtValue) -> None:
        """pool[rows] = values, `rows` [N, 1], in place: nothing else of the pool is touched."""
        binding = self._scatter.io_binding()
        binding.bind_ortvalue_input("pool", pool)
        binding.bind_ortvalue_input("rows", rows)
        binding.bind_ortvalue_input("values", values)
        binding.bind_ortvalue_output("written", pool)
        self._scatter.run_with_iobinding(binding)

    def put(self, tensor: NDArray[np.generic]) -> ort.OrtValue:
        """On the device when this returns. (What is bound from the host is on its way only, on one of the graph's
        streams: another thread's run may be on another.)"""
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(tensor), self.device, 0)

    def empty(self, shape: Sequence[int]) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.float16, self.device, 0)


class _Row:
    """A place in a pool, free again when nothing refers to it any more."""

    __slots__ = ("_free", "index")

    def __init__(self, index: int, free: deque[int]) -> None:
        self.index, self._free = index, free

    def __del__(self) -> None:
        self._free.append(self.index)


class Pool:
    """Tensors [capacity, ...] of the same objects, in which a row belongs to one object. What is in a row that was
    handed out is written once: so reading needs no lock, and a state that was kept is what it was."""

    def __init__(self, copier: Copier, shapes: Mapping[str, Sequence[int]], capacity: int) -> None:
        """`shapes`: of one row, by name."""
        self._copier = copier
        self._shapes = dict(shapes)
        self._tensors = self._allocated(capacity)
        self._capacity = capacity
        self._free = deque(range(capacity))
        self.row_bytes = 2 * sum(int(np.prod(shape)) for shape in self._shapes.values())

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def free(self) -> int:
        return len(self._free)

    def store(self, values: Mapping[str, ort.OrtValue], spare: int) -> DeviceRows:
        """New rows, with these values [N, ...] of the device; `spare` more stay free. Belongs to the runtime's thread.
        Raises Overloaded where the device has no memory left."""
        count = next(iter(values.values())).shape()[0]
        while len(self._free) < count + spare:
            self._grow()
        rows = tuple(_Row(self._free.popleft(), self._free) for _ in range(count))
        where = self._copier.put(_indices(rows)[:, None])
        for name, value in values.items():
            self._copier.write(self._tensors[name], where, value)
        return DeviceRows(self, rows)

    def read(self, rows: Sequence[_Row], device: str) -> dict[str, ort.OrtValue]:
        where = self._copier.put(_indices(rows))
        return {name: self._copier.read(tensor, where, device) for name, tensor in self._tensors.items()}

    def _allocated(self, capacity: int) -> dict[str, ort.OrtValue]:
        try:
            return {name: self._copier.empty((capacity, *shape)) for name, shape in self._shapes.items()}
        except Exception as error:  # onnxruntime's own errors have no common class
            raise Overloaded(
                "the memory of the device is full; try again once other sessions have ended", retry_after_s=5.0
            ) from error

    def _grow(self) -> None:
        """To twice the size. Who reads meanwhile reads the former tensors, in which its rows are the same."""
        grown = self._allocated(2 * self._capacity)
        kept = self._copier.put(np.arange(self._capacity, dtype=np.int64)[:, None])
        for name, tensor in self._tensors.items():
            self._copier.write(grown[name], kept, tensor)
        self._tensors = grown
        self._free.extend(range(self._capacity, 2 * self._capacity))
        self._capacity *= 2


class DeviceRows:
    """Rows of a pool. To take or join them moves no state."""

    def __init__(self, pool: Pool, rows: Sequence[_Row]) -> None:
        self.pool, self.rows = pool, rows

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        return len(self.rows) * self.pool.row_bytes

    def take(self, rows: Sequence[int]) -> DeviceRows:
        return DeviceRows(self.pool, [self.rows[row] for row in rows])

    def join(self, others: Sequence[Rows]) -> Rows:
        joined = list(self.rows)
        for other in others:
            if not isinstance(other, DeviceRows) or other.pool is not self.pool:
                return HostRows(self.tensors()).join(others)
            joined += other.rows
        return DeviceRows(self.pool, joined)

    def tensors(self) -> Tensors:
        return {name: value.numpy() for name, value in self.pool.read(self.rows, "cpu").items()}


def _indices(rows: Sequence[_Row]) -> NDArray[np.int64]:
    return np.array([row.index for row in rows], np.int64)
