"""The graphs of a bundle, loaded and checked."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort

from service.core.types import ModelInfo
from service.runtime.bundle import Bundle, BundleError

Provider = Literal["cpu", "cuda"]
# Where onnxruntime has another name than numpy.
_NAMED = {"float32": "float", "float64": "double"}
_PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Batches come in every size: to try all algorithms of every convolution anew for each would take seconds.
_OPTIONS: dict[str, dict[str, str]] = {"cpu": {}, "cuda": {"cudnn_conv_algo_search": "HEURISTIC"}}


class Graphs:
    """`init` and `step` of a bundle on one provider; or `init` and the two halves of `step`, `encode` and `recur`."""

    def __init__(self, bundle: Bundle, provider: Provider, chosen: str) -> None:
        """Raises BundleError when the provider is not in this build of onnxruntime, or does not start; and for an 8-bit
        bundle on a GPU, which has no kernels for much of it: that would be worked out by the CPU, of which nobody would
        know."""
        if bundle.in_bytes and provider != "cpu":
            raise BundleError(f"{bundle.folder} is made for CPUs, in 8 bits: serve the float bundle on {provider}")
        self._bundle = bundle
        self._provider = provider
        self.changing = tuple(spec.name for spec in bundle.states if not spec.constant)
        self.constant = tuple(spec.name for spec in bundle.states if spec.constant)
        self.states = tuple(spec.name for spec in bundle.states)
        self._types = {spec.name: f"tensor({_NAMED.get(spec.dtype, spec.dtype)})" for spec in bundle.states}
        self.info = ModelInfo(
            name=bundle.name,
            digest=bundle.digest,
            pixel_budget=bundle.pixel_budget,
            multiple=bundle.multiple,
            states=bundle.states,
            training_data=bundle.training_data,
            licence=bundle.licence,
            scores=bundle.scores,
            provider=_PROVIDERS[provider],
            chosen=chosen,
        )

    def init(self, threads: int) -> ort.InferenceSession:
        """Raises BundleError, as the others do, for a graph that cannot be loaded, or is not what the manifest says."""
        options = session_options(threads)
        # An int8 bundle's init graph has 8-bit weights for float arithmetic: unpacked here once, not in every run.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = load_graph(self._bundle.folder / "init.onnx", options, self._provider)
        self._expect(_types(session.get_outputs()) == self._types)
        return session

    def step(self, threads: int) -> ort.InferenceSession:
        return self._stepping("step.onnx", {"frame"}, threads)

    def halves(self, threads: int) -> tuple[ort.InferenceSession, ort.InferenceSession]:
        """(encode, recur)."""
        encode = load_graph(self._bundle.folder / "encode.onnx", session_options(threads), self._provider)
        return encode, self._stepping("recur.onnx", set(_names(encode.get_outputs())), threads)

    def fed(self, step: ort.InferenceSession) -> tuple[str, ...]:
        """The states that it takes: it need not use every one, and onnxruntime refuses feeds that it has no input
        for."""
        taken = _names(step.get_inputs())
        return tuple(name for name in self.states if name in taken)

    def _stepping(self, name: str, sees: set[str], threads: int) -> ort.InferenceSession:
        session = load_graph(self._bundle.folder / name, session_options(threads), self._provider)
        given, taken = _types(session.get_outputs()), _types(session.get_inputs())
        nexts = {f"next_{name}": self._types[name] for name in self.changing}
        self._expect(given == {"probability": "tensor(float)"} | nexts)
        states = {name: kind for name, kind in taken.items() if name not in {"frame_row"} | sees}
        self._expect(states.items() <= self._types.items())
        return session

    def _expect(self, right: bool) -> None:
        if not right:
            raise BundleError(
                f"{self._bundle.folder}: the graphs' inputs and outputs are not those of the manifest's states"
            )


def _names(values: list[Any]) -> list[str]:
    return [value.name for value in values]


def _types(values: list[Any]) -> dict[str, str]:
    return {value.name: value.type for value in values}


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Those that this process may use: by its affinity, and by the `quota` of its control group."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = (float(part) for part in quota.read_text().split())
    except (OSError, ValueError):  # no control groups, or "max"
        return count
    return max(1, min(count, math.ceil(allowed / period)))


def physical_cores(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Where two of this process's cores are one, their threads in one run only wait for each other."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    try:
        siblings = {(cpus / f"cpu{n}/topology/thread_siblings_list").read_text() for n in os.sched_getaffinity(0)}
    except OSError:
        return len(os.sched_getaffinity(0))
    return len(siblings)


def session_options(threads: int) -> ort.SessionOptions:
    """`threads`: of the CPU provider, 0 for one per core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin from one operator to the next save a fifth of a step; beyond its end they would take the
    # cores from decoding and encoding.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def load_graph(path: Path, options: ort.SessionOptions, provider: Provider) -> ort.InferenceSession:
    """Raises BundleError: it cannot be loaded, or not with this provider."""
    wanted = _PROVIDERS[provider]
    if wanted not in ort.get_available_providers():
        raise BundleError(
            f"this onnxruntime has no {wanted} (only {', '.join(ort.get_available_providers())}): "
            "install the extra s2spp[gpu], or ask for the provider cpu"
        )
    providers: list[Any] = [(wanted, _OPTIONS[provider])]
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise BundleError(f"onnxruntime cannot load {path}: {error}") from error
    if session.get_providers()[0] != wanted:
        # It would go on with the CPU, of which nobody would know.
        raise BundleError(f"{wanted} does not start here: see onnxruntime's messages, or ask for cpu")
    return session
