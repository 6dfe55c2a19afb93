"""The int8 step graph's first convolution in a form that onnxruntime runs in half the time, the same to the bit.

It gathers a 3x3 neighbourhood of 3 bytes a pixel in nine copies of three bytes, which takes longer than multiplying.
Four pixels side by side as one cell of 12 channels, and the two pixels that come of it as one of twice the outputs: a
quarter of the copies, four times as long."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

# Pixels of a cell: frames are multiples of 32. Two of the stem's own pixels come of it, its stride being 2.
_CELL, _MADE = 4, 2


def widen_stem(model: onnx.ModelProto) -> None:
    """Rewrite a quantised step graph. Raises ValueError where its frame is not read by a 3x3 convolution of stride 2,
    padded right and bottom, on bytes: it is as it was then."""
    graph = model.graph
    turn = _reader(graph, "frame", "Transpose")
    dequantise = _reader(graph, turn.output[0], "DequantizeLinear")
    conv = _reader(graph, dequantise.output[0], "Conv")
    quantise = _reader(graph, conv.output[0], "QuantizeLinear")
    given = {attribute.name: list(attribute.ints) for attribute in conv.attribute}
    if [given.get(name) for name in ("kernel_shape", "strides", "pads")] != [[3, 3], [2, 2], [0, 0, 1, 1]]:
        raise ValueError(f"expected a 3x3 stem of stride 2, padded right and bottom, got {given}")
    outputs = _widen_weights(graph, conv)
    for attribute in [attribute for attribute in conv.attribute if attribute.name in ("kernel_shape", "strides")]:
        conv.attribute.remove(attribute)
    conv.attribute.extend(helper.make_attribute(*pair) for pair in (("kernel_shape", [3, 2]), ("strides", [2, 1])))
    graph.initializer.extend(
        numpy_helper.from_array(np.array(shape, np.int64), name)
        for name, shape in (("stem_cells", (0, 0, -1, 3 * _CELL)), ("stem_pixels", (0, 0, -1, outputs)))
    )
    turn.input[0] = "frame_cells"
    narrow, quantise.output[0] = quantise.output[0], "stem_wide"
    after = list(graph.node).index(quantise) + 1
    for node in (
        helper.make_node("Transpose", ["stem_turned"], [narrow], "stem_to_planes", perm=(0, 3, 1, 2)),
        helper.make_node("Reshape", ["stem_by_cell", "stem_pixels"], ["stem_turned"], "stem_one_by_one"),
        helper.make_node("Transpose", ["stem_wide"], ["stem_by_cell"], "stem_to_pixels", perm=(0, 2, 3, 1)),
    ):
        graph.node.insert(after, node)
    cells = helper.make_node("Reshape", ["frame", "stem_cells"], ["frame_cells"], "stem_by_fours")
    graph.node.insert(list(graph.node).index(turn), cells)
    # Shapes inside are others now.
    del graph.value_info[:]


def _reader(graph: onnx.GraphProto, name: str, kind: str) -> onnx.NodeProto:
    """The one node that reads a tensor, its shape aside."""
    found = [node for node in graph.node if name in node.input and node.op_type != "Shape"]
    if len(found) != 1 or found[0].op_type != kind:
        raise ValueError(f"expected one {kind} of {name!r} in an int8 step graph")
    return found[0]


def _widen_weights(graph: onnx.GraphProto, conv: onnx.NodeProto) -> int:
    """Put the wide weights and biases in the place of the convolution's own, and return how many outputs it had."""
    made_by = {node.output[0]: node for node in graph.node}
    held = {tensor.name: tensor for tensor in graph.initializer}
    weight, bias = (made_by[name] for name in conv.input[1:])
    for node in (weight, bias):
        for name in node.input:
            values = numpy_helper.to_array(held[name])
            wide = _wide_weight(values) if values.ndim == 4 else np.tile(values, _MADE)
            held[name].CopyFrom(numpy_helper.from_array(wide, name))
    return held[weight.input[0]].dims[0] // _MADE


def _wide_weight(weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """[O,3,3,3] -> [2 O,12,3,2]: of a cell and the one to its right, pixel by pixel."""
    outputs, colours, height, width = weight.shape
    wide = np.zeros((_MADE, outputs, 2, _CELL, colours, height), np.int8)
    for pixel in range(_MADE):
        for column in range(width):
            cell, place = divmod(2 * pixel + column, _CELL)
            wide[pixel, :, cell, place] = weight[..., column]
    return wide.transpose(0, 1, 3, 4, 5, 2).reshape(_MADE * outputs, _CELL * colours, height, 2)
