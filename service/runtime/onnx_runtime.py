"""The Runtime port on onnxruntime. Does not know sessions, frames' own sizes or objects' ids."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from s2spp.geometry import model_size
from service.core.ports import StepResult
from service.core.state import HostRows, State
from service.core.types import ImageU8, ModelInfo
from service.runtime.allocator import release_free_memory
from service.runtime.batch import frame_rows, parts, stacked
from service.runtime.bundle import Bundle, BundleError

Provider = Literal["cpu", "cuda"]
_PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    """One bundle, ready to run. Calls block and belong to one thread at a time."""

    def __init__(self, bundle: Bundle, threads: int = 0, provider: Provider = "cpu", chosen: str = "") -> None:
        """`threads`: of the CPU provider, 0 for one per core. `chosen`: see ModelInfo. Raises BundleError when the
        graphs are not what the manifest says, or the provider is not in this build of onnxruntime."""
        wanted = _PROVIDERS[provider]
        if wanted not in ort.get_available_providers():
            raise BundleError(
                f"this onnxruntime has no {wanted} (only {', '.join(ort.get_available_providers())}): "
                "install the extra s2spp[gpu], or ask for the provider cpu"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin from one operator to the next save a fifth of a step; beyond its end they would take the
        # cores from decoding and encoding.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._step = self._load(bundle, "step.onnx", options, wanted)
        # An int8 bundle's init graph has 8-bit weights for float arithmetic: unpacked here once, not in every run.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._init = self._load(bundle, "init.onnx", options, wanted)
        self._once = ort.RunOptions()
        if provider == "cpu":
            # A graph keeps its working memory for its next run: right for `step`, and for `init` a few hundred MB
            # more, for ever, once 16 sessions were opened together.
            self._once.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._states = tuple(spec.name for spec in bundle.states)
        self._changing = tuple(spec.name for spec in bundle.states if not spec.constant)
        self._constant = tuple(spec.name for spec in bundle.states if spec.constant)
        self._check_signature(bundle)
        self._info = ModelInfo(
            name=bundle.name,
            digest=bundle.digest,
            pixel_budget=bundle.pixel_budget,
            multiple=bundle.multiple,
            states=bundle.states,
            training_data=bundle.training_data,
            licence=bundle.licence,
            scores=bundle.scores,
            provider=wanted,
            chosen=chosen,
        )

    @staticmethod
    def _load(bundle: Bundle, part: str, options: ort.SessionOptions, provider: str) -> ort.InferenceSession:
        try:
            session = ort.InferenceSession(str(bundle.folder / part), options, providers=[provider])
        except Exception as error:
            raise BundleError(f"onnxruntime cannot load {bundle.folder / part}: {error}") from error
        if session.get_providers()[0] != provider:
            # It would go on with the CPU, of which nobody would know.
            raise BundleError(f"{provider} does not start here: see onnxruntime's messages, or ask for cpu")
        return session

    def _check_signature(self, bundle: Bundle) -> None:
        init_out = [value.name for value in self._init.get_outputs()]
        step_in = [value.name for value in self._step.get_inputs()]
        step_out = [value.name for value in self._step.get_outputs()]
        expected_out = ["probability", *(f"next_{name}" for name in self._changing)]
        if (
            init_out != list(self._states)
            or step_out != expected_out
            or set(step_in) - {"frame", "frame_row"} - set(self._states)
        ):
            raise BundleError(f"{bundle.folder}: the graphs' inputs and outputs are not those of the manifest's states")
        # A graph need not use every state; onnxruntime refuses feeds that it has no input for.
        self._fed = tuple(name for name in self._states if name in step_in)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def initialise(self, frames: Sequence[ImageU8], masks: Sequence[NDArray[np.uint8]]) -> list[State]:
        counts = [len(own) for own in masks]
        feeds = {"frame": stacked(frames), "mask": np.concatenate(masks), "frame_row": frame_rows(counts)}
        tensors = dict(zip(self._states, self._init.run(None, feeds, self._once), strict=True))
        # In the warm-up this is what loading the graphs has left. Unasked it would go when protobuf trims, about a
        # thousand frames later, and in a server without gRPC clients never.
        release_free_memory()
        return [
            State(_own(tensors, self._changing, rows, counts), _own(tensors, self._constant, rows, counts))
            for rows in parts(counts)
        ]

    def step(self, frames: Sequence[ImageU8], states: Sequence[State]) -> list[StepResult]:
        counts = [state.objects for state in states]
        given = [{**state.changing.tensors(), **state.constant.tensors()} for state in states]
        feeds = {name: _joined([tensors[name] for tensors in given]) for name in self._fed}
        began = time.perf_counter()
        probability, *nexts = self._step.run(None, {"frame": stacked(frames), "frame_row": frame_rows(counts), **feeds})
        compute_ms = (time.perf_counter() - began) * 1e3
        tensors = dict(zip(self._changing, nexts, strict=True))
        return [
            StepResult(
                probability if len(states) == 1 else probability[rows.start : rows.stop].copy(),
                State(_own(tensors, self._changing, rows, counts), state.constant),
                compute_ms,
            )
            for rows, state in zip(parts(counts), states, strict=True)
        ]

    def warm_up(self) -> None:
        """One initialise and two steps at the usual size, so that no user pays for first-run allocations."""
        size = model_size(480, 854, self._info.pixel_budget, self._info.multiple)
        frame = np.zeros((*size, 3), np.uint8)
        states = self.initialise([frame], [np.ones((1, *size), np.uint8)])
        for _ in range(2):
            states = [result.state for result in self.step([frame], states)]


def _joined(tensors: Sequence[NDArray[np.generic]]) -> NDArray[np.generic]:
    return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)


def _own(tensors: Mapping[str, NDArray[Any]], names: Sequence[str], rows: range, counts: Sequence[int]) -> HostRows:
    """One frame's rows. Copies where there are others: a view would keep the whole batch alive with each session."""
    if len(counts) == 1:
        return HostRows((name, tensors[name]) for name in names)
    return HostRows((name, tensors[name][rows.start : rows.stop].copy()) for name in names)
