"""States that cross an int8 bundle's graphs in 8 bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.export import parity
from model.export.int8 import Int8Report
from model.export.int8_states import states_in_bytes
from service.runtime.bundle import find_bundle

IN_BYTES = {f"rnn{number}_{part}" for number in (1, 2, 3) for part in "hc"} | {"previous_key"}
HELD = [{"memory": np.full((1, 1, 2, 2), 0.5, np.float16)}]


@pytest.fixture(params=["made now", "shipped"])
def folder(request: pytest.FixtureRequest, int8: Int8Report) -> Path:
    return int8.folder if request.param == "made now" else find_bundle("s2spp-light-int8")


def test_what_is_rounded_crosses_as_bytes_and_the_rest_as_float16(folder: Path) -> None:
    """Both graphs say what the manifest says, and it is most of the state."""
    states = json.loads((folder / "manifest.json").read_text())["states"]
    kinds = {state["name"]: state["dtype"] for state in states}
    assert {name for name, kind in kinds.items() if kind == "uint8"} == IN_BYTES
    assert set(kinds.values()) == {"uint8", "float16"}
    init, step = parity.open_graphs(folder)
    types = {"tensor(uint8)": "uint8", "tensor(float16)": "float16"}
    assert {value.name: types[value.type] for value in init.get_outputs()} == kinds
    taken = {value.name: value.type for value in step.get_inputs() if value.name in kinds}
    assert {name: types[kind] for name, kind in taken.items()} == kinds
    for value in step.get_outputs()[1:]:
        assert types[value.type] == kinds[value.name.removeprefix("next_")]


def test_nobody_rounds_a_byte_state_anew_on_the_way_to_a_convolution(folder: Path) -> None:
    """With other steps it would be off by half of one in every frame."""
    graph = onnx.load(folder / "recur.onnx").graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for state in ("rnn1_h", "rnn2_h", "rnn3_h"):
        (restore,) = (node for node in readers[state] if node.op_type == "DequantizeLinear")
        found += [node.op_type for node in readers[restore.output[0]]]
    assert found == ["Conv"] * 3


def test_a_state_means_the_same_on_its_way_out_in_and_at_the_start(folder: Path) -> None:
    """One scale and zero point for all three: else a state would change between two frames."""

    def steps(name: str) -> dict[str, list[float]]:
        model = onnx.load(folder / name)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        found: dict[str, list[float]] = {}
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear" and node.output[0].removeprefix("next_") in IN_BYTES:
                found[node.output[0]] = [float(constants[part]) for part in node.input[1:]]
            if node.op_type == "DequantizeLinear" and node.input[0] in IN_BYTES:
                found[node.input[0]] = [float(constants[part]) for part in node.input[1:]]
        return found

    init, step = steps("init.onnx"), steps("step.onnx")
    assert set(init) == IN_BYTES
    for state in IN_BYTES:
        assert init[state] == step[state]
        assert step[f"next_{state}"] == init[state]


def _cell(*, biased: bool) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """h -> rounded by steps of 0.02 -> 1x1 convolution -> h rounded by steps of 0.01; `held` is not rounded."""
    constants = {
        "in_scale": np.float32(0.02),
        "out_scale": np.float32(0.01),
        "zero": np.uint8(128),
        "weight": np.full((1, 1, 1, 1), 0.9, np.float32),
        "bias": np.full(1, 0.05, np.float32),
    }
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", 1, 2, 2]) for name in ("memory", "held")]
    made = [
        helper.make_tensor_value_info(f"next_{name}", TensorProto.FLOAT16, ["N", 1, 2, 2])
        for name in ("memory", "held")
    ]
    nodes = [
        helper.make_node("Cast", ["memory"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["real", "in_scale", "zero"], ["seen"]),
        helper.make_node("DequantizeLinear", ["seen", "in_scale", "zero"], ["seen_real"]),
        helper.make_node("Conv", ["seen_real", "weight", *(["bias"] if biased else [])], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "out_scale", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "out_scale", "zero"], ["next_real"]),
        helper.make_node("Cast", ["next_real"], ["next_memory"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["held"], ["held_real"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["held_real"], ["next_held"], to=TensorProto.FLOAT16),
    ]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    step = helper.make_graph(nodes, "step", given, made, held)
    start = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["N", 1, 2, 2]) for name in ("memory", "held")]
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", 1, 2, 2])
    begin = [
        helper.make_node("Cast", ["mask"], ["memory"], to=TensorProto.FLOAT16),
        helper.make_node("Identity", ["memory"], ["held"]),
    ]
    opset = [helper.make_opsetid("", 17)]
    return (
        helper.make_model(step, opset_imports=opset, ir_version=8),
        helper.make_model(helper.make_graph(begin, "init", [mask], start), opset_imports=opset, ir_version=8),
    )


def _run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip((value.name for value in session.get_outputs()), session.run(None, feeds), strict=True))


def test_what_the_bytes_cannot_hold_at_the_start_stays_in_float() -> None:
    """Else the first mask of a session would be cut off."""
    for start, held in ((1.0, ["memory"]), (3.0, [])):  # there are bytes for -1.28 to 1.27
        step, init = _cell(biased=False)
        assert states_in_bytes(step, init, [{"memory": np.full((1, 1, 2, 2), start, np.float16)}]) == held
        onnx.checker.check_model(init, full_check=True)


@pytest.mark.parametrize("biased", [False, True])
def test_the_numbers_behind_the_bytes(biased: bool) -> None:
    """A convolution with a bias keeps its own rounding: its bias' scale is made of it."""
    step, init = _cell(biased=biased)
    assert states_in_bytes(step, init, HELD) == ["memory"]
    for model in (step, init):
        onnx.checker.check_model(model, full_check=True)
    mask = np.array([[[[0.5, 0.013], [-0.7, 9.0]]]], np.float32)
    start = _run(init, {"mask": mask})
    assert start["memory"].tolist() == [[[[178, 129], [58, 255]]]]  # 0.5, 0.01, -0.7 and the most there is, 1.27
    assert start["held"].dtype == np.float16 and start["held"].tolist() == mask.astype(np.float16).tolist()
    after = _run(step, start)
    seen = np.array([[0.5, 0.01], [-0.7, 1.27]])
    seen = np.round(seen / 0.02) * 0.02 if biased else seen
    expected = np.round((0.9 * seen + 0.05 * biased) / 0.01) + 128
    np.testing.assert_array_equal(after["next_memory"][0, 0], np.clip(expected, 0, 255))
    assert after["next_memory"].dtype == np.uint8 and after["next_held"].dtype == np.float16


def test_a_state_that_no_cast_makes_is_told() -> None:
    step, init = _cell(biased=False)
    next(node for node in init.graph.node if node.output[0] == "memory").op_type = "Identity"
    with pytest.raises(ValueError, match=r"expected a Cast to make 'memory', got Identity"):
        states_in_bytes(step, init, HELD)


def test_a_second_reader_of_a_state_would_take_bytes_for_numbers_and_is_told() -> None:
    step, init = _cell(biased=False)
    step.graph.node.insert(0, helper.make_node("Cast", ["memory"], ["too"], to=TensorProto.FLOAT))
    with pytest.raises(ValueError, match=r"expected one Cast of 'memory', got Cast, Cast"):
        states_in_bytes(step, init, HELD)
