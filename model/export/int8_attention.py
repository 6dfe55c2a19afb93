"""The int8 step graph's attention in 8 bits, and once for objects that ask the same of the same.

Queries are 8-bit features already, and so were the keys when the previous frame made them: their products lose nothing
but what the reference's keys are rounded by. A row's weights are rounded to 255 steps of its largest, not of 1: where
attention is spread, each of them is small. They add up as rounded, in one column more of the values, and by that sum
what is read is divided.

Objects that were marked together have the same keys, and of the previous frame all have. An object shares the first
one's weights where the frame is the same and the keys are, byte by byte: no mask depends on who shares the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.network.attention import FAR_BELOW

# onnxruntime's own: 8-bit matrices in, float out. Of the standard form it would make one with unsigned bytes on both
# sides, which takes twice as long.
_ONNXRUNTIME, _MATMUL = "com.microsoft", "MatMulIntegerToFloat"
_ROW = "frame_row"


@dataclass(frozen=True)
class _Attention:
    """Names of the tensors of one FrameAttention, and its last node. `pixels` uint8 [F,h,w,K] are the frames', with
    their `scale` and `zero`; `key` [N,K,c] and `value` [N,V,c] the objects', c = h w. Likenesses are products
    times `factor`, less `distances` [c,c]."""

    pixels: str
    scale: str
    zero: str
    factor: float
    distances: str | None
    key: str
    key_channels: int
    value: str
    value_channels: int
    read: onnx.NodeProto


def attend_in_bytes(model: onnx.ModelProto) -> None:
    """Rewrite every attention of a quantised step graph. What nobody reads any more is left for the caller to drop.
    Raises ValueError for an attention of another form."""
    graph = model.graph
    found = [_found(graph, node) for node in graph.node if node.op_type == "Softmax"]
    if not found:
        return
    if all(opset.domain != _ONNXRUNTIME for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_ONNXRUNTIME, 1))
    nodes = _Nodes(graph, "attend")
    own, first = _objects(nodes)
    nodes.insert_before(found[0].read)
    for number, attention in enumerate(found):
        nodes = _Nodes(graph, f"attend{number}")
        _read(nodes, attention, _weights(nodes, attention, own, first))
        nodes.insert_before(attention.read)
        graph.node.remove(attention.read)


def has_products(graph: onnx.GraphProto) -> bool:
    """Whether it has any that `products_in_float` would replace."""
    return any(node.op_type == _MATMUL for node in graph.node)


def products_in_float(graph: onnx.GraphProto) -> None:
    """Work its 8-bit products out in float, which no processor gets wrong: for what others are compared with.
    (Without onnxruntime's option session.disable_quant_qdq it would join the pieces again.)"""
    for product in [node for node in graph.node if node.op_type == _MATMUL]:
        place = list(graph.node).index(product)
        one, other, one_scale, other_scale, one_zero, other_zero = product.input
        floats = [f"{product.name}_one", f"{product.name}_other"]
        nodes = [
            helper.make_node("DequantizeLinear", [one, one_scale, one_zero], floats[:1]),
            helper.make_node("DequantizeLinear", [other, other_scale, other_zero], floats[1:]),
            helper.make_node("MatMul", floats, product.output),
        ]
        graph.node.remove(product)
        for node in reversed(nodes):
            graph.node.insert(place, node)


class _Nodes:
    """Nodes and constants on their way into a graph; their names begin alike."""

    def __init__(self, graph: onnx.GraphProto, name: str) -> None:
        self._graph = graph
        self._name = name
        self._made: list[onnx.NodeProto] = []

    def value(self, name: str) -> NDArray[Any]:
        """Of a constant of the graph."""
        return numpy_helper.to_array(next(tensor for tensor in self._graph.initializer if tensor.name == name))

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        full = f"{self._name}_{name}"
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), full))
        return full

    def node(self, kind: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """With one output, named as it is."""
        full = f"{self._name}_{name}"
        self._made.append(helper.make_node(kind, inputs, [full], full, **attributes))
        return full

    def add(self, node: onnx.NodeProto) -> None:
        self._made.append(node)

    def insert_before(self, node: onnx.NodeProto) -> None:
        place = list(self._graph.node).index(node)
        for made in reversed(self._made):
            self._graph.node.insert(place, made)


def _found(graph: onnx.GraphProto, softmax: onnx.NodeProto) -> _Attention:
    made = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input}

    def maker(name: str, *kinds: str) -> onnx.NodeProto:
        node = made.get(name)
        if node is None or node.op_type not in kinds:
            raise ValueError(f"expected {' or '.join(kinds)} to make {name!r} in an attention of the step graph")
        return node

    def reader(name: str, kind: str) -> onnx.NodeProto:
        found = [node for node in graph.node if name in node.input]
        if [node.op_type for node in found] != [kind]:
            raise ValueError(f"expected one {kind} of {name!r} in an attention of the step graph")
        return found[0]

    def state(view: str) -> str:
        return str(maker(maker(view, "Reshape").input[0], "Cast").input[0])

    def channels(state: str) -> int:
        return int(inputs[state].type.tensor_type.shape.dim[1].dim_value)

    likeness = maker(maker(softmax.input[0], "Max").input[0], "Sub", "Mul")
    local = likeness.op_type == "Sub"
    scaled = maker(likeness.input[0], "Mul") if local else likeness
    product = maker(scaled.input[0], "MatMul")
    gather = maker(product.input[0], "DequantizeLinear")
    while gather.op_type != "Gather":
        gather = maker(gather.input[0], "DequantizeLinear", "QuantizeLinear", "Transpose", "Reshape", "Gather")
    pixels, scale, zero = maker(gather.input[0], "DequantizeLinear").input
    read = reader(reader(softmax.output[0], "Transpose").output[0], "MatMul")
    return _Attention(
        pixels=pixels,
        scale=scale,
        zero=zero,
        factor=float(numpy_helper.to_array(constants[scaled.input[1]])),
        distances=likeness.input[1] if local else None,
        key=product.input[1],
        key_channels=channels(state(product.input[1])),
        value=read.input[0],
        value_channels=channels(state(read.input[0])),
        read=read,
    )


def _objects(nodes: _Nodes) -> tuple[str, str]:
    """[N] each: the objects' own numbers, and for each the number of the first object on its frame."""
    column = nodes.node("Unsqueeze", "column", [_ROW, nodes.constant("second", np.array([1]))])
    together = nodes.node("Cast", "together", [nodes.node("Equal", "same", [_ROW, column])], to=TensorProto.INT32)
    first = nodes.node("ArgMax", "first", [together], axis=1, keepdims=0)
    count = nodes.node("Squeeze", "count", [nodes.node("Shape", "shape", [_ROW])])
    bounds = nodes.constant("none", np.int64(0)), count, nodes.constant("one", np.int64(1))
    return nodes.node("Range", "own", bounds), first


def _weights(nodes: _Nodes, attention: _Attention, own: str, first: str) -> str:
    """uint8 [N,c,c]: what each cell of the frame thinks of each remembered one, 255 for the one it likes best."""
    signed = nodes.constant("key_zero", (nodes.value(attention.zero).astype(np.int16) - 128).astype(np.int8))
    key = nodes.node("QuantizeLinear", "key", [attention.key, attention.scale, signed])
    asked, place = _distinct(nodes, key, own, first)
    pixels = nodes.node("Gather", "pixels", [attention.pixels, nodes.node("Gather", "rows", [_ROW, asked])])
    shape = nodes.constant("cells", np.array([0, -1, attention.key_channels]))
    scale = nodes.constant("scale", nodes.value(attention.scale) * np.float32(attention.factor))
    likeness = nodes.node(
        _MATMUL,
        "likeness",
        [
            nodes.node("Reshape", "query", [pixels, shape]),
            nodes.node("Gather", "keys", [key, asked]),
            *(scale, attention.scale, attention.zero, signed),
        ],
        domain=_ONNXRUNTIME,
    )
    if attention.distances is not None:
        likeness = nodes.node("Sub", "nearness", [likeness, attention.distances])
    best = nodes.node("ReduceMax", "best", [likeness, nodes.constant("last", np.array([-1]))], keepdims=1)
    below = nodes.node("Sub", "below", [likeness, best])
    # Denormal numbers would take a processor a hundred times as long, here too.
    bounded = nodes.node("Clip", "bounded", [below, nodes.constant("far", np.float32(-FAR_BELOW))])
    steps = nodes.constant("step", np.float32(1 / 255)), nodes.constant("zero", np.uint8(0))
    rounded = nodes.node("QuantizeLinear", "rounded", [nodes.node("Exp", "weights", [bounded]), *steps])
    return nodes.node("Gather", "of_objects", [rounded, place])


def _distinct(nodes: _Nodes, key: str, own: str, first: str) -> tuple[str, str]:
    """`key` int8 [N,K,c] -> (numbers of U objects, int64 [N]: which of those an object has frame and key in common
    with)."""
    alike = nodes.node("Equal", "alike", [key, nodes.node("Gather", "first_key", [key, first])])
    everywhere = nodes.node(
        "ReduceMin",
        "everywhere",
        [nodes.node("Cast", "as_bytes", [alike], to=TensorProto.UINT8), nodes.constant("of_a_key", np.array([1, 2]))],
        keepdims=0,
    )
    same = nodes.node("Cast", "shared", [everywhere], to=TensorProto.BOOL)
    source = nodes.node("Where", "source", [same, first, own])
    asked, where, place = (f"{source}_{name}" for name in ("asked", "where", "place"))
    nodes.add(helper.make_node("Unique", [source], [asked, where, place], f"{source}_distinct"))
    return asked, place


def _read(nodes: _Nodes, attention: _Attention, weights: str) -> None:
    """Weights uint8 [N,c,c] and values -> what `attention.read` gives, under its name."""
    value = nodes.node("Transpose", "value", [attention.value], perm=(0, 2, 1))
    # Of each object and channel by itself: some are thirty times as loud as others, and what the first mask gave is
    # many times as loud as what frames give later.
    loudest = nodes.node(
        "ReduceMax", "loudest", [nodes.node("Abs", "loud", [value]), nodes.constant("cell_axis", np.array([1]))]
    )
    largest = nodes.node("Max", "largest", [loudest, nodes.constant("least", np.float32(1e-6))])
    column = nodes.constant("column", np.array([0, 0, 0, 0, 0, 1])), nodes.constant("full", np.float32(1))
    padded = nodes.node("Pad", "padded", [nodes.node("Div", "shares", [value, largest]), *column])
    scale, zero = nodes.constant("value_step", np.float32(1 / 127)), nodes.constant("value_zero", np.int8(0))
    values = nodes.node("QuantizeLinear", "values", [padded, scale, zero])
    # Of whatever scale, since one part of the sums is divided by the other.
    any_scale, none = nodes.constant("any_scale", np.float32(1)), nodes.constant("none", np.uint8(0))
    sums = nodes.node(_MATMUL, "sums", [weights, values, any_scale, any_scale, none, zero], domain=_ONNXRUNTIME)
    read, total = (f"{sums}_{name}" for name in ("read", "total"))
    sizes = nodes.constant("sizes", np.array([attention.value_channels, 1]))
    nodes.add(helper.make_node("Split", [sums, sizes], [read, total], f"{sums}_parts", axis=2))
    mean = nodes.node("Div", "mean", [read, nodes.node("Div", "divisor", [total, largest])])
    nodes.add(helper.make_node("Transpose", [mean], list(attention.read.output), f"{mean}_turned", perm=(0, 2, 1)))
