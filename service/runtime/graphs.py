"""The two graphs of a bundle, loaded and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort

from service.core.types import ModelInfo
from service.runtime.bundle import Bundle, BundleError

Provider = Literal["cpu", "cuda"]
_PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Batches come in every size: to try all algorithms of every convolution anew for each would take seconds.
_OPTIONS: dict[str, dict[str, str]] = {"cpu": {}, "cuda": {"cudnn_conv_algo_search": "HEURISTIC"}}


class Graphs:
    """`init` and `step` on one provider. `fed`: the states that `step` takes."""

    def __init__(self, bundle: Bundle, threads: int, provider: Provider, chosen: str) -> None:
        """Raises BundleError when the graphs are not what the manifest says, or the provider is not in this build of
        onnxruntime."""
        self.provider = provider
        options = session_options(threads)
        self.step = load_graph(bundle.folder / "step.onnx", options, provider)
        # An int8 bundle's init graph has 8-bit weights for float arithmetic: unpacked here once, not in every run.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self.init = load_graph(bundle.folder / "init.onnx", options, provider)
        self.states = tuple(spec.name for spec in bundle.states)
        self.changing = tuple(spec.name for spec in bundle.states if not spec.constant)
        self.constant = tuple(spec.name for spec in bundle.states if spec.constant)
        # A graph need not use every state; onnxruntime refuses feeds that it has no input for.
        step_in = {value.name for value in self.step.get_inputs()}
        self.fed = tuple(name for name in self.states if name in step_in)
        self._check_signature(bundle, step_in)
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

    def _check_signature(self, bundle: Bundle, step_in: set[str]) -> None:
        init_out = [value.name for value in self.init.get_outputs()]
        step_out = [value.name for value in self.step.get_outputs()]
        expected_out = ["probability", *(f"next_{name}" for name in self.changing)]
        if (
            init_out != list(self.states)
            or step_out != expected_out
            or step_in - {"frame", "frame_row"} - set(self.states)
        ):
            raise BundleError(f"{bundle.folder}: the graphs' inputs and outputs are not those of the manifest's states")


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
