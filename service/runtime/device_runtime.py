"""The Runtime port on a GPU, where the states stay: per frame its pixels go there and probabilities come back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.core.ports import Seen, StepResult
from service.core.state import HostRows, Rows, State
from service.core.types import ImageU8, ModelInfo
from service.runtime.batch import frame_rows, parts, stacked, warm_up
from service.runtime.bundle import Bundle, BundleError
from service.runtime.graphs import Graphs, Provider
from service.runtime.pool import Copier, DeviceRows, Pool

# Rows allocated at first, of the usual size of frame at the start, of another with its first session: twice as many
# whenever they do not suffice.
_USUAL, _OTHER = 256, 16


class DeviceRuntime:
    """One bundle, ready to run. Calls belong to one thread at a time; states may be read in any thread. (With
    the provider cpu it does the same in this process's memory: for tests.)"""

    def __init__(self, bundle: Bundle, chosen: str = "", *, max_batch: int, provider: Provider = "cuda") -> None:
        """`chosen`: see ModelInfo. `max_batch`: objects in a run, at most. Raises BundleError when the
        graphs are not what the manifest says, or the provider does not start."""
        self._graphs = Graphs(bundle, provider, chosen)
        self._init, self._step = self._graphs.init(0), self._graphs.step(0)
        self._fed = self._graphs.fed(self._step)
        other = [spec.name for spec in bundle.states if spec.dtype != "float16"]
        if other:
            raise BundleError(
                f"{bundle.folder}: states on a GPU are float16, {', '.join(other)} are not; export it anew"
            )
        self._copier = Copier(provider)
        self._max_batch = max_batch
        # By names and shapes. A pool goes with the last session that has rows in it.
        self._pools: WeakValueDictionary[tuple[object, ...], Pool] = WeakValueDictionary()
        self._capacity = _OTHER
        self._usual: list[State] = []

    @property
    def info(self) -> ModelInfo:
        return self._graphs.info

    @property
    def lanes(self) -> int:
        return 1

    def encode(self, frame: ImageU8, *, wide: bool = True) -> Seen:
        return frame

    def initialise(self, frames: Sequence[ImageU8], masks: Sequence[NDArray[np.uint8]]) -> list[State]:
        counts = [len(own) for own in masks]
        given: dict[str, NDArray[Any]] = {
            "frame": stacked(frames),
            "frame_row": frame_rows(counts),
            "mask": np.concatenate(masks),
        }
        values = self._run(self._init, given, {}, dict.fromkeys(self._graphs.states, self._copier.device))
        state = State(
            self._store({name: values[name] for name in self._graphs.changing}, spare=self._max_batch),
            self._store({name: values[name] for name in self._graphs.constant}),
        )
        return [state.take(rows) for rows in parts(counts)]

    def step(self, frames: Sequence[Seen], states: Sequence[State], *, wide: bool = True) -> list[StepResult]:
        pixels = [frame for frame in frames if isinstance(frame, np.ndarray)]  # all of them: see encode
        began = time.perf_counter()
        counts = [state.objects for state in states]
        states = [State(self._there(state.changing, self._max_batch), self._there(state.constant)) for state in states]
        before = {
            **self._joined([state.changing for state in states]),
            **self._joined([state.constant for state in states]),
        }
        given: dict[str, NDArray[Any]] = {"frame": stacked(pixels), "frame_row": frame_rows(counts)}
        wanted = {"probability": "cpu"} | {f"next_{name}": self._copier.device for name in self._graphs.changing}
        fed = {name: before[name] for name in self._fed}
        made = self._run(self._step, given, fed, wanted)
        changed = self._store({name: made[f"next_{name}"] for name in self._graphs.changing})
        probability = made["probability"].numpy()
        compute_ms = (time.perf_counter() - began) * 1e3
        return [
            StepResult(
                probability if len(states) == 1 else probability[rows.start : rows.stop].copy(),
                State(changed.take(rows), state.constant),
                compute_ms,
            )
            for rows, state in zip(parts(counts), states, strict=True)
        ]

    def warm_up(self) -> None:
        """For batches of 1, 2, 4, ... frames, so that no user pays for first-run allocations; and allocate the pools of
        the usual size."""
        self._capacity = _USUAL
        for frames in sorted({self._max_batch, *(1 << power for power in range(self._max_batch.bit_length()))}):
            self._usual = warm_up(self, frames)[:1]
        self._capacity = _OTHER

    def _there(self, rows: Rows, spare: int = 0) -> Rows:
        """Those that were restored are on the host until their first step."""
        if isinstance(rows, DeviceRows) or not rows.count:
            return rows
        return self._store({name: self._copier.put(tensor) for name, tensor in rows.tensors().items()}, spare)

    def _joined(self, parts: Sequence[Rows]) -> dict[str, ort.OrtValue]:
        """On the device, one below the other."""
        rows = parts[0].join(parts[1:])
        return rows.pool.read(rows.rows, self._copier.device) if isinstance(rows, DeviceRows) else {}

    def _store(self, values: Mapping[str, ort.OrtValue], spare: int = 0) -> Rows:
        """`spare`: of what steps change. Each of them needs rows beside those that it steps from: sessions that came
        new could take the last ones, and nobody would go on."""
        if not values:
            return HostRows()  # a network need not have constant states
        shapes = {name: tuple(value.shape()[1:]) for name, value in values.items()}
        key = tuple(shapes.items())
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(self._copier, shapes, self._capacity)
        return pool.store(values, spare)

    @staticmethod
    def _run(
        graph: ort.InferenceSession,
        given: Mapping[str, NDArray[Any]],
        there: Mapping[str, ort.OrtValue],
        wanted: Mapping[str, str],
    ) -> dict[str, ort.OrtValue]:
        """`given` on the host, `there` on the device; `wanted`: on which device each output is to be."""
        binding = graph.io_binding()
        for name, array in given.items():
            binding.bind_cpu_input(name, array)
        for name, value in there.items():
            binding.bind_ortvalue_input(name, value)
        for name, device in wanted.items():
            binding.bind_output(name, device)
        graph.run_with_iobinding(binding)
        return dict(zip(wanted, binding.get_outputs(), strict=True))
