"""The Runtime port on onnxruntime. Does not know sessions, frames' own sizes or objects' ids."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.core.ports import StepResult
from service.core.state import HostRows, State
from service.core.types import ImageU8, ModelInfo
from service.runtime.allocator import release_free_memory
from service.runtime.batch import frame_rows, parts, stacked, warm_up
from service.runtime.bundle import Bundle
from service.runtime.graphs import Graphs


class OnnxRuntime:
    """One bundle, ready to run on the CPU, its states in this process's memory. Calls block and belong to one thread
    at a time."""

    def __init__(self, bundle: Bundle, threads: int = 0, chosen: str = "") -> None:
        """`threads`: 0 for one per core. `chosen`: see ModelInfo. Raises BundleError when the graphs are not what the
        manifest says."""
        self._graphs = Graphs(bundle, threads, "cpu", chosen)
        # A graph keeps its working memory for its next run: right for `step`, and for `init` a few hundred MB
        # more, for ever, once 16 sessions were opened together.
        self._once = ort.RunOptions()
        self._once.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    @property
    def info(self) -> ModelInfo:
        return self._graphs.info

    def initialise(self, frames: Sequence[ImageU8], masks: Sequence[NDArray[np.uint8]]) -> list[State]:
        graphs, counts = self._graphs, [len(own) for own in masks]
        feeds = {"frame": stacked(frames), "mask": np.concatenate(masks), "frame_row": frame_rows(counts)}
        tensors = dict(zip(graphs.states, graphs.init.run(None, feeds, self._once), strict=True))
        states = [
            State(_own(tensors, graphs.changing, rows, counts), _own(tensors, graphs.constant, rows, counts))
            for rows in parts(counts)
        ]
        del tensors
        # In the warm-up this is what loading the graphs has left. Unasked it would go when protobuf trims, about a
        # thousand frames later, and in a server without gRPC clients never.
        release_free_memory()
        return states

    def step(self, frames: Sequence[ImageU8], states: Sequence[State]) -> list[StepResult]:
        graphs, counts = self._graphs, [state.objects for state in states]
        given = [{**state.changing.tensors(), **state.constant.tensors()} for state in states]
        feeds = {name: _joined([tensors[name] for tensors in given]) for name in graphs.fed}
        feeds |= {"frame": stacked(frames), "frame_row": frame_rows(counts)}
        began = time.perf_counter()
        probability, *nexts = graphs.step.run(None, feeds)
        compute_ms = (time.perf_counter() - began) * 1e3
        tensors = dict(zip(graphs.changing, nexts, strict=True))
        return [
            StepResult(
                probability if len(states) == 1 else probability[rows.start : rows.stop].copy(),
                State(_own(tensors, graphs.changing, rows, counts), state.constant),
                compute_ms,
            )
            for rows, state in zip(parts(counts), states, strict=True)
        ]

    def warm_up(self) -> None:
        """So that no user pays for first-run allocations."""
        warm_up(self, 1)


def _joined(tensors: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)


def _own(tensors: Mapping[str, NDArray[Any]], names: Sequence[str], rows: range, counts: Sequence[int]) -> HostRows:
    """One frame's rows. Copies where there are others: a view would keep the whole batch alive with each session."""
    if len(counts) == 1:
        return HostRows((name, tensors[name]) for name in names)
    return HostRows((name, tensors[name][rows.start : rows.stop].copy()) for name in names)
