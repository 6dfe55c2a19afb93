"""Writes a model bundle: manifest.json, init.onnx, step.onnx. A bundle that fails parity is never left behind."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.export.graphs import InitGraph, StepGraph, state_names
from model.export.onnx_files import write_onnx
from model.export.parity import Parity, check_parity
from model.network import S2Spp
from model.training.checkpoint import Checkpoint

FORMAT = 1


@dataclass(frozen=True)
class Card:
    """What a bundle says of itself beside its tensors. `scores`: measured J, F and JF by split."""

    training_data: str
    licence: str
    scores: dict[str, float]


@dataclass(frozen=True)
class ExportReport:
    folder: Path
    digest: str
    megabytes: float
    parity: list[Parity]


def export_bundle(checkpoint: Checkpoint, folder: Path, name: str, card: Card) -> ExportReport:
    """Write `folder` anew. Raises ValueError, writing nothing, when torch and onnxruntime disagree."""
    config = checkpoint.network
    network = checkpoint.model()
    _round_weights(network)
    changing, constant = state_names(config)
    states = (*changing, *constant)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        size = (config.multiple * 2, config.multiple * 3)
        example = _example(network, size)
        height, width = torch.export.Dim("h", max=64), torch.export.Dim("w", max=64)
        grid = {1: config.multiple * height, 2: config.multiple * width}
        objects = torch.export.Dim("N")
        frames = torch.export.Dim("F")
        per_object = {0: objects}
        frame_shape = {0: frames, **grid}
        write_onnx(
            InitGraph(network),
            (example.frame, example.mask, example.row),
            (["frame", "mask", "frame_row"], list(states)),
            (frame_shape, {0: objects, **grid}, per_object),
            work / "init.onnx",
        )
        strides = [
            config.multiple * size[0] // config.multiple // tensor.shape[2] for tensor in example.states
        ]
        state_shapes = tuple(
            {0: objects, 2: config.multiple // s * height, 3: config.multiple // s * width} for s in strides
        )
        write_onnx(
            StepGraph(network, changing, constant),
            (example.frame, example.row, *example.states),
            (["frame", "frame_row", *states], ["probability", *(f"next_{state}" for state in changing)]),
            (frame_shape, per_object, state_shapes),
            work / "step.onnx",
        )
        parity = check_parity(network, work, states, len(changing))
        if not all(result.holds for result in parity):
            raise ValueError(f"no bundle written: torch and onnxruntime disagree: {parity}")
        digest = bundle_digest(work)
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "name": name,
            "digest": digest,
            "pixel_budget": config.pixel_budget,
            "multiple": config.multiple,
            "output_stride": config.output_stride,
            "states": [
                {
                    "name": state,
                    "shape": [tensor.shape[1], f"H/{stride}", f"W/{stride}"],
                    "dtype": "float16",
                    "constant": state in constant,
                }
                for state, tensor, stride in zip(states, example.states, strides, strict=True)
            ],
            "steps_trained": checkpoint.step,
            "network": config.to_dict(),
            **asdict(card),
        }
        (work / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        folder.mkdir(parents=True, exist_ok=True)
        for part in ("init.onnx", "step.onnx", "manifest.json"):
            shutil.copyfile(work / part, folder / part)
    size_mb = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    return ExportReport(folder, digest, size_mb, parity)


def bundle_digest(folder: Path) -> str:
    """sha256 over both graphs: two bundles with one digest compute the same."""
    digest = hashlib.sha256()
    for part in ("init.onnx", "step.onnx"):
        digest.update((folder / part).read_bytes())
    return digest.hexdigest()


def _round_weights(network: S2Spp) -> None:
    """To what the files hold, so that parity compares the same numbers."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half().float())


@dataclass(frozen=True)
class _Example:
    frame: Tensor
    mask: Tensor
    row: Tensor
    states: tuple[Tensor, ...]


@torch.no_grad()
def _example(network: S2Spp, size: tuple[int, int]) -> _Example:
    """Two frames and three objects: no axis is 1, which an exporter would freeze."""
    frame = torch.zeros(2, *size, 3, dtype=torch.uint8)
    mask = torch.zeros(3, *size, dtype=torch.uint8)
    row = torch.tensor([0, 1, 0])
    return _Example(frame, mask, row, InitGraph(network)(frame, mask, row))
