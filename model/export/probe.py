"""The probe of `s2spp bench`: one 8-bit convolution, to say how fast a machine is whatever model it serves. Serving
has no onnx to make it with, so it is kept as a file (`python -m model.export.probe`; a test says when it is stale)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

PROBE = Path(__file__).parents[2] / "s2spp" / "benchmark" / "int8_conv.onnx"
CHANNELS, HEIGHT, WIDTH = 128, 32, 56


def probe() -> bytes:
    """3x3, 128 to 128 channels, on 32 x 56 cells: the shape of the heavier convolutions of a light model."""
    ones = numpy_helper.from_array(np.ones(1, np.int8))
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "middle"], ["real"]),
        helper.make_node("ConstantOfShape", ["shape"], ["weight"], value=ones),
        helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["real_weight"]),
        helper.make_node("Conv", ["real", "real_weight"], ["sum"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["sum", "out_scale", "middle"], ["y"]),
    ]
    constants: dict[str, NDArray[np.generic]] = {
        "shape": np.array([CHANNELS, CHANNELS, 3, 3], np.int64),
        "scale": np.array(0.02, np.float32),
        "out_scale": np.array(0.5, np.float32),
        "middle": np.array(128, np.uint8),
        "zero": np.array(0, np.int8),
    }
    size = [1, CHANNELS, HEIGHT, WIDTH]
    graph = helper.make_graph(
        nodes,
        "int8_conv",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, size)],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, size)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


if __name__ == "__main__":
    PROBE.write_bytes(probe())
    print(PROBE)
