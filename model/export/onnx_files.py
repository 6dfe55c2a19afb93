"""Torch graphs to ONNX files, weights stored as float16 and computed with as float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 20
# Small constants (scales, shapes, biases of a few numbers) are not worth a Cast node.
_SMALL = 256


def write_onnx(
    graph: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    names: tuple[list[str], list[str]],
    dynamic_shapes: tuple[object, ...],
    path: Path,
) -> None:
    """Export `graph` on example `inputs`; `names` are (inputs, outputs)."""
    program = torch.onnx.export(
        graph,
        inputs,
        input_names=names[0],
        output_names=names[1],
        dynamic_shapes=dynamic_shapes,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _store_weights_as_float16(model)
    # Drop what only the exporter's own reader needs: source lines and local paths have no place in a bundle.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _store_weights_as_float16(model: onnx.ModelProto) -> None:
    """Half the size on disk. onnxruntime folds the casts once, when it loads the file."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_float16")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
