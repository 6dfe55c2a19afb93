"""The wide form of an int8 graph's first convolution: the same bytes come out."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.export.stem import widen_stem

OUTPUTS = 5


def stem(stride: int = 2) -> onnx.ModelProto:
    """frame -> Transpose -> DequantizeLinear -> Conv -> QuantizeLinear, with weights and biases of each output."""
    rng = np.random.default_rng(0)
    held = {
        "scale": np.float32(1 / 127.5),
        "zero": np.uint8(128),
        "weight": rng.integers(-127, 128, (OUTPUTS, 3, 3, 3)).astype(np.int8),
        "weight_scale": rng.uniform(0.001, 0.01, OUTPUTS).astype(np.float32),
        "weight_zero": np.zeros(OUTPUTS, np.int8),
        "bias": rng.integers(-9000, 9000, OUTPUTS).astype(np.int32),
        "bias_scale": np.full(OUTPUTS, 1e-4, np.float32),
        "bias_zero": np.zeros(OUTPUTS, np.int32),
        "made_scale": np.float32(0.02),
        "made_zero": np.uint8(3),
    }
    nodes = [
        helper.make_node("Transpose", ["frame"], ["planes"], perm=(0, 3, 1, 2)),
        helper.make_node("DequantizeLinear", ["planes", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], axis=0),
        helper.make_node("DequantizeLinear", ["bias", "bias_scale", "bias_zero"], ["b"], axis=0),
        helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3], strides=[stride] * 2, pads=[0, 0, 1, 1]),
        helper.make_node("QuantizeLinear", ["y", "made_scale", "made_zero"], ["made"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stem",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["F", "H", "W", 3])],
        [helper.make_tensor_value_info("made", TensorProto.UINT8, ["F", OUTPUTS, "h", "w"])],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_the_wide_stem_gives_the_same_bytes() -> None:
    wide = stem()
    widen_stem(wide)
    onnx.checker.check_model(wide)
    graphs = [ort.InferenceSession(model.SerializeToString()) for model in (stem(), wide)]
    for shape in ((1, 64, 96, 3), (3, 32, 64, 3)):
        frame = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
        first, second = (graph.run(None, {"frame": frame})[0] for graph in graphs)
        assert len(np.unique(first)) > 100
        np.testing.assert_array_equal(first, second)


def test_another_stem_is_refused_and_left_as_it_is() -> None:
    model = stem(stride=1)
    before = model.SerializeToString(deterministic=True)
    with pytest.raises(ValueError, match="3x3 stem of stride 2"):
        widen_stem(model)
    assert model.SerializeToString(deterministic=True) == before
