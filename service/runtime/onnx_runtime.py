"""The Runtime port on onnxruntime. Does not know sessions, frames' own sizes or objects' ids."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.core.ports import Features, Period, Seen, StepResult
from service.core.state import HostRows, State
from service.core.types import ImageU8, ModelInfo
from service.runtime.allocator import release_free_memory
from service.runtime.batch import frame_rows, parts, stacked, warm_up
from service.runtime.bundle import Bundle
from service.runtime.graphs import Graphs, cores


class OnnxRuntime:
    """One bundle, ready to run on the CPU, its states in this process's memory.

    The halves of its step are loaded twice: for runs on all cores and for runs on one, several of them at a time. Two
    cores take a frame through both halves in 0.6 of one core's time, and two frames side by side in half of it: what
    counts for who is alone, and what counts where there is work for both."""

    def __init__(self, bundle: Bundle, threads: int = 0, chosen: str = "") -> None:
        """`threads`: 0 for one per core. `chosen`: see ModelInfo. Raises BundleError when the graphs are not what the
        manifest says."""
        self.lanes = threads or cores()
        self._graphs = Graphs(bundle, "cpu", chosen)
        self._init = self._graphs.init(self.lanes)
        wide = self._graphs.halves(self.lanes)
        narrow = self._graphs.halves(1) if self.lanes > 1 else wide
        self._halves = {True: wide, False: narrow}
        self._features = [value.name for value in wide[0].get_outputs()]
        self._fed = self._graphs.fed(wide[1])
        # A graph keeps its working memory for its next run: right for a step, and for `init` a few hundred MB
        # more, for ever, once 16 sessions were opened together.
        self._once = ort.RunOptions()
        self._once.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    @property
    def info(self) -> ModelInfo:
        return self._graphs.info

    def initialise(self, frames: Sequence[ImageU8], masks: Sequence[NDArray[np.uint8]]) -> list[State]:
        graphs, counts = self._graphs, [len(own) for own in masks]
        feeds = {"frame": stacked(frames), "mask": np.concatenate(masks), "frame_row": frame_rows(counts)}
        tensors = dict(zip(graphs.states, self._init.run(None, feeds, self._once), strict=True))
        states = [
            State(_own(tensors, graphs.changing, rows, counts), _own(tensors, graphs.constant, rows, counts))
            for rows in parts(counts)
        ]
        del tensors
        # In the warm-up this is what loading the graphs has left. Unasked it would go when protobuf trims, about a
        # thousand frames later, and in a server without gRPC clients never.
        release_free_memory()
        return states

    def encode(self, frame: ImageU8, *, wide: bool = True) -> Features:
        encode, _ = self._halves[wide]
        began = time.perf_counter()
        tensors = dict(zip(self._features, encode.run(None, {"frame": frame[None]}), strict=True))
        return Features(frame.shape, tensors, Period(began, time.perf_counter()))

    def step(self, frames: Sequence[Seen], states: Sequence[State], *, wide: bool = True) -> list[StepResult]:
        """One after the other: on a CPU a batch of frames is no faster."""
        return [self._step(frame, state, wide) for frame, state in zip(frames, states, strict=True)]

    def _step(self, frame: Seen, state: State, wide: bool) -> StepResult:
        encoded = None if isinstance(frame, Features) else self.encode(frame, wide=wide)
        features = encoded or frame
        assert isinstance(features, Features)
        _, recur = self._halves[wide]
        given = {**state.changing.tensors(), **state.constant.tensors()}
        feeds = {**features.tensors, **{name: given[name] for name in self._fed}}
        feeds["frame_row"] = frame_rows([state.objects])
        began = time.perf_counter()
        probability, *nexts = recur.run(None, feeds)
        seconds = time.perf_counter() - began + (encoded.made.seconds if encoded else 0.0)
        changed = HostRows(zip(self._graphs.changing, nexts, strict=True))
        return StepResult(probability, State(changed, state.constant), seconds * 1e3)

    def warm_up(self) -> None:
        """So that no user pays for first-run allocations."""
        warm_up(self, 1, ways=(True, False) if self.lanes > 1 else (True,))


def _own(tensors: Mapping[str, NDArray[Any]], names: Sequence[str], rows: range, counts: Sequence[int]) -> HostRows:
    """One frame's rows. Copies where there are others: a view would keep the whole batch alive with each session."""
    if len(counts) == 1:
        return HostRows((name, tensors[name]) for name in names)
    return HostRows((name, tensors[name][rows.start : rows.stop].copy()) for name in names)
