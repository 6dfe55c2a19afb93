"""States of an int8 bundle that cross its graphs as the bytes that they are: half of float16's, to keep and to store.

What the step graph hands on was rounded to 8 bits, by one scale and zero point; they become those of the state. What
was not rounded (the previous mask) stays as it is, and so do the previous frame's values: what the first mask leaves
there is five times as loud as what frames leave later, and would be cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_NEXT, _UNROUNDED = "next_", "_unrounded"
# Of a state's energy at the start, what rounding and cutting off may take: 0.2 % for cells, 14 % for values.
_LOST = 0.01


@dataclass(frozen=True)
class _Steps:
    """The 8-bit tensor that is handed on, and the constants that say what its steps mean."""

    name: str
    scale: onnx.TensorProto
    zero: onnx.TensorProto

    @property
    def inputs(self) -> list[str]:
        """Of a node that rounds, or restores, beside what it takes."""
        return [self.scale.name, self.zero.name]

    def hold(self, values: Sequence[NDArray[Any]]) -> bool:
        """Whether `values` lose next to nothing, rounded so and cut off."""
        scale, zero = float(numpy_helper.to_array(self.scale)), int(numpy_helper.to_array(self.zero))
        exact = np.concatenate([value.ravel() for value in values]).astype(np.float64)
        held = (np.clip(np.round(exact / scale) + zero, 0, 255) - zero) * scale
        return bool(np.square(exact - held).sum() <= _LOST * np.square(exact).sum())


def states_in_bytes(
    step: onnx.ModelProto, init: onnx.ModelProto, starts: Sequence[Mapping[str, NDArray[Any]]]
) -> list[str]:
    """Let the states whose next value `step` rounds to 8 bits enter and leave both graphs so, where that holds what
    they are at the `starts` of clips, too; returns their names. What nobody reads any more is left for the caller to
    drop. Raises ValueError for graphs that convert states otherwise than ours do."""
    found = []
    for output in [value.name for value in step.graph.output if value.name.startswith(_NEXT)]:
        state, steps = output.removeprefix(_NEXT), _handed_on(step.graph, output)
        if steps is None:
            continue
        if not steps.hold([start[state] for start in starts]):
            continue
        _give(step.graph, output, steps)
        _take(step.graph, state, steps)
        init.graph.initializer.extend([steps.scale, steps.zero])
        _start(init.graph, state, steps)
        found.append(state)
    return found


def _handed_on(graph: onnx.GraphProto, output: str) -> _Steps | None:
    """Where `output` is Cast(DequantizeLinear(bytes)), the bytes of one scale and no output themselves."""
    made = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    cast = made.get(output)
    restore = made.get(cast.input[0]) if cast is not None and cast.op_type == "Cast" else None
    if restore is None or restore.op_type != "DequantizeLinear" or len(restore.input) != 3:
        return None
    given, scale, zero = restore.input
    plain = constants[zero].data_type == TensorProto.UINT8 and not constants[scale].dims
    return _Steps(given, constants[scale], constants[zero]) if plain and given in made else None


def _give(graph: onnx.GraphProto, output: str, steps: _Steps) -> None:
    """The bytes themselves are the output, under its name; who reads them reads it."""
    if steps.name in [value.name for value in graph.output]:
        raise ValueError(f"{output!r} and {steps.name!r} are one tensor of the step graph")
    graph.node.remove(_cast(graph, output))
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [output if name == steps.name else name for name in names]
    _retype(graph.output, output)


def _take(graph: onnx.GraphProto, state: str, steps: _Steps) -> None:
    """Restored where it was cast to float."""
    casts = [node for node in _readers(graph, state) if node.op_type != "Shape"]
    if [node.op_type for node in casts] != ["Cast"]:
        raise ValueError(f"expected one Cast of {state!r}, got {', '.join(node.op_type for node in casts) or 'none'}")
    (cast,) = casts
    restored = cast.output[0]
    place = list(graph.node).index(cast)
    graph.node.remove(cast)
    graph.node.insert(place, helper.make_node("DequantizeLinear", [state, *steps.inputs], [restored], cast.name))
    for convolution, rounded in _rounded_anew(graph, restored):
        # The scale of a bias is made of its input's.
        if len(convolution.input) == 2:
            convolution.input[:] = [restored if name == rounded else name for name in convolution.input]
    _retype(graph.input, state)


def _rounded_anew(graph: onnx.GraphProto, name: str) -> list[tuple[onnx.NodeProto, str]]:
    """The convolutions that take `name` rounded by other steps, and what that is called."""
    return [
        (reader, again.output[0])
        for rounding in _readers(graph, name)
        if rounding.op_type == "QuantizeLinear"
        for again in _readers(graph, rounding.output[0])
        if again.op_type == "DequantizeLinear"
        for reader in _readers(graph, again.output[0])
        if reader.op_type == "Conv"
    ]


def _start(graph: onnx.GraphProto, state: str, steps: _Steps) -> None:
    cast = _cast(graph, state)
    # Another state may be the same value (the reference's, at first): that stays as it is.
    cast.output[0] = f"{state}{_UNROUNDED}"
    for node in graph.node:
        node.input[:] = [cast.output[0] if name == state else name for name in node.input]
    graph.node.append(helper.make_node("QuantizeLinear", [cast.input[0], *steps.inputs], [state], f"{state}_in_bytes"))
    _retype(graph.output, state)


def _cast(graph: onnx.GraphProto, output: str) -> onnx.NodeProto:
    """The one that makes it."""
    makers = [node for node in graph.node if output in node.output]
    kinds = [node.op_type for node in makers]
    if kinds != ["Cast"]:
        raise ValueError(f"expected a Cast to make {output!r}, got {', '.join(kinds)}")
    return makers[0]


def _readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if name in node.input]


def _retype(values: Sequence[onnx.ValueInfoProto], name: str) -> None:
    value = next(value for value in values if value.name == name)
    value.type.tensor_type.elem_type = TensorProto.UINT8
