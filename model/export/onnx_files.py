"""Torch graphs to ONNX files, weights stored as float16 and computed with as float32."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 20
# Small constants (scales, shapes, biases of a few numbers) are not worth a Cast node.
_SMALL = 256
HALF = "_float16"
"""Ends the name of a weight that is stored so."""


def write_onnx(
    graph: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    names: tuple[list[str], list[str]],
    dynamic_shapes: tuple[object, ...],
    path: Path,
) -> None:
    """Export `graph` on example `inputs`; `names` are (inputs, outputs)."""
    with _quiet_exporter():
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
    _drop_notes(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Its warnings are of torch to itself: deprecations, axis names merged, torchvision not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _drop_notes(model: onnx.ModelProto) -> None:
    """What only the exporter's own reader needs: source lines and local paths have no place in a bundle."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        value.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


def _store_weights_as_float16(model: onnx.ModelProto) -> None:
    """Half the size on disk, for every tensor that float16 holds exactly, as rounded weights are. onnxruntime
    folds the casts once, when it loads the file."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        stored = numpy_helper.from_array(half, name + HALF)
        tensor.CopyFrom(stored)
        casts.append(helper.make_node("Cast", [stored.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
