"""The float16 form of a bundle, for GPUs: their matrix units take float16 at twice the rate of any float32."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from model.export.bundle import MANIFEST, ExportReport, complete, seal, write_beside
from model.export.parity import compare_bundles


def halve_bundle(source: Path, folder: Path, name: str, scores: Mapping[str, float] | None = None) -> ExportReport:
    """Write the bundle `folder` of the float bundle `source`: the same graphs, worked out in float16 but for what
    onnxruntime's converter leaves in float32 (sizes, resizing). `scores`: its own, where they have been measured.
    Raises ValueError for a source that is no float bundle, and where both disagree: nothing is written then."""
    manifest: dict[str, Any] = json.loads((source / MANIFEST).read_text())
    if "quantised_from" in manifest or "halved_from" in manifest:
        raise ValueError(f"{source} is no float bundle; name the one that it was made of")
    with write_beside(folder.absolute(), source) as work:
        for part in ("init.onnx", "step.onnx"):
            model = onnx.load(source / part)
            _weights_as_float32(model)
            # Inputs and outputs stay what the contract says; states are float16 there already.
            model = convert_float_to_float16(model, keep_io_types=True)
            OnnxModel(model).topological_sort(is_deterministic=True)
            onnx.checker.check_model(model)
            (work / part).write_bytes(model.SerializeToString(deterministic=True))
        complete(work)
        parity = compare_bundles(work, source, manifest["multiple"])
        if not all(result.holds for result in parity):
            raise ValueError(f"no bundle written: float16 and float32 disagree: {parity}")
        manifest |= {"name": name, "halved_from": manifest["digest"], "scores": dict(scores or {})}
        digest, megabytes = seal(work, manifest)
    return ExportReport(folder, digest, megabytes, parity)


def _weights_as_float32(model: onnx.ModelProto) -> None:
    """As the converter expects them: stored so, and not as float16 with a Cast behind (see onnx_files)."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]:
        tensor = stored[node.input[0]]
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)
