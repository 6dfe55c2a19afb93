"""A model bundle that needs no training: it starts at once, and is recurrent enough to notice a lost state.

State `memory` [N,1,h,w] begins as the mask; each step moves it towards the frame's brightness, and it is the
probability. State `first` [N,1,h,w], the first mask, is constant and pulls it back.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper, save

from model.export.halves import write_halves

_STATE = ["N", 1, "h", "w"]
_FILES = ["init.onnx", "step.onnx", "encode.onnx", "recur.onnx"]


def write_tiny_bundle(folder: Path, gain: float = 0.2, *, constant: bool = True) -> Path:
    """`gain`: of the frame's brightness; another one is another model. `constant` False: nothing pulls back."""
    folder.mkdir(parents=True)
    for name, graph in (("init.onnx", _init_graph(constant)), ("step.onnx", _step_graph(gain, constant))):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        checker.check_model(model, full_check=True)
        save(model, folder / name)
    write_halves(folder)
    digest = hashlib.sha256()
    for name in _FILES:
        digest.update((folder / name).read_bytes())
    manifest = {
        "format": 3,
        "name": "tiny",
        "digest": digest.hexdigest(),
        "files": _FILES,
        "pixel_budget": 64 * 96,
        "multiple": 16,
        "output_stride": 1,
        "states": [
            {"name": "memory", "shape": [1, "H", "W"], "dtype": "float16", "constant": False},
            {"name": "first", "shape": [1, "H", "W"], "dtype": "float16", "constant": True},
        ][: 1 + constant],
        "training_data": "none",
        "licence": "Apache-2.0",
        "scores": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _init_graph(constant: bool) -> GraphProto:
    nodes = [
        helper.make_node("Cast", ["mask"], ["binary"], to=TensorProto.FLOAT16),
        helper.make_node("Unsqueeze", ["binary", "one"], ["memory"]),
        helper.make_node("Identity", ["memory"], ["first"]),
    ][: 2 + constant]
    inputs = [*_frame_inputs(), helper.make_tensor_value_info("mask", TensorProto.UINT8, ["N", "h", "w"])]
    return helper.make_graph(
        nodes, "init", inputs, [_state("memory"), _state("first")][: 1 + constant], [_constant("one", np.array([1]))]
    )


def _step_graph(gain: float, constant: bool) -> GraphProto:
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["grey"], axes=[3], keepdims=0),
        helper.make_node("Gather", ["grey", "frame_row"], ["seen"]),
        helper.make_node("Unsqueeze", ["seen", "one"], ["seen_NCHW"]),
        helper.make_node("Mul", ["seen_NCHW", "gain"], ["pull"]),
        helper.make_node("Cast", ["memory"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["kept", "keep"], ["held"]),
        helper.make_node("Cast", ["first" if constant else "memory"], ["anchor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["anchor", "back"], ["anchored"]),
        helper.make_node("Sum", ["pull", "held", "anchored"], ["next"]),
        helper.make_node("Cast", ["next"], ["next_memory"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["next_memory"], ["rounded"], to=TensorProto.FLOAT),
        helper.make_node("Squeeze", ["rounded", "one"], ["probability"]),
    ]
    constants = [
        _constant("one", np.array([1])),
        _constant("gain", np.array(gain / 255, np.float32)),
        _constant("keep", np.array(0.7, np.float32)),
        _constant("back", np.array(0.1, np.float32)),
    ]
    outputs = [
        helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", "h", "w"]),
        _state("next_memory"),
    ]
    inputs = [*_frame_inputs(), _state("memory"), _state("first")][: 3 + constant]
    return helper.make_graph(nodes, "step", inputs, outputs, constants)


def _frame_inputs() -> list[ValueInfoProto]:
    return [
        helper.make_tensor_value_info("frame", TensorProto.UINT8, ["F", "h", "w", 3]),
        helper.make_tensor_value_info("frame_row", TensorProto.INT64, ["N"]),
    ]


def _state(name: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT16, _STATE)


def _constant(name: str, value: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(value, name)
