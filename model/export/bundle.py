"""Writes a model bundle: manifest.json, the graphs and their weights. None that fails parity is left behind."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import NetworkConfig
from model.export.check import CHECK, write_check
from model.export.folder import replace_folder
from model.export.graphs import STATE_DTYPE, InitGraph, StepGraph, state_names
from model.export.halves import ENCODE, RECUR, STEP, write_halves
from model.export.onnx_files import write_onnx
from model.export.parity import Parity, check_parity
from model.export.shared_weights import WEIGHTS, share_weights
from model.network import S2Spp
from model.training.checkpoint import Checkpoint

FORMAT = 3
GRAPHS = ("init.onnx", STEP, ENCODE, RECUR)
FILES = (*GRAPHS, WEIGHTS)
MANIFEST = "manifest.json"
Say = Callable[[str], None]
# Sides of the grid in multiples of the model's own; far beyond any pixel budget.
_LONGEST = 64


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


def export_bundle(
    checkpoint: Checkpoint, folder: Path, name: str, card: Card, say: Say = lambda stage: None
) -> ExportReport:
    """Write the bundle `folder`, or replace it in one step; other files in it (a model card) stay. Each stage, which
    may take half a minute, is told to `say` as it begins. Raises ValueError, changing nothing, when torch and
    onnxruntime disagree or `folder` holds something else."""
    network = checkpoint.model()
    round_weights(network)
    with write_beside(folder.absolute()) as work:
        shapes = _write_graphs(network, work, say)
        say("cutting the step in halves, sharing weights")
        complete(work)
        names = state_names(network)
        say("comparing with torch, over a clip of one object and of five")
        parity = check_parity(network, work)
        if not all(result.holds for result in parity):
            raise ValueError(f"no bundle written: torch and onnxruntime disagree: {parity}")
        manifest = _manifest(checkpoint, name, names, shapes) | asdict(card)
        say("storing a step to check machines by")
        digest, megabytes = seal(work, manifest)
    return ExportReport(folder, digest, megabytes, parity)


def complete(work: Path) -> None:
    """To the init and step graphs in `work` the halves of the latter; the weights of all go into one file."""
    write_halves(work)
    share_weights(work, GRAPHS)


def seal(work: Path, manifest: dict[str, Any]) -> tuple[str, float]:
    """Make a bundle of the folder `work`, which holds the graphs and their weights: add a stored step and the
    manifest, with format, files and digest. Returns the digest and the bundle's size in MB."""
    write_check(work, manifest["multiple"])
    digest = bundle_digest(work)
    manifest = manifest | {"format": FORMAT, "digest": digest, "files": list(FILES)}
    (work / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return digest, sum((work / part).stat().st_size for part in (*FILES, MANIFEST, CHECK)) / 1e6


def bundle_digest(folder: Path) -> str:
    """sha256 over the graphs and their weights: two bundles with one digest compute the same."""
    digest = hashlib.sha256()
    for part in FILES:
        digest.update((folder / part).read_bytes())
    return digest.hexdigest()


@contextmanager
def write_beside(folder: Path, made_of: Path | None = None) -> Iterator[Path]:
    """A folder to work in, which takes the place of `folder` at the end if all went well. `made_of`: another bundle,
    which stays."""
    kept: list[Path] = []
    if made_of is not None and folder.exists() and folder.samefile(made_of):
        raise ValueError(f"{folder} is the bundle that is read; name another folder to write")
    if folder.exists():
        entries = list(folder.iterdir())
        if entries and not (folder / MANIFEST).exists():
            raise ValueError(f"{folder} is no bundle: name a new or empty folder, or a bundle to replace")
        kept = [path for path in entries if path.name not in (*FILES, MANIFEST, CHECK)]
    work = folder.with_name(f".{folder.name}.partial")
    # Of an export that was killed.
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        for path in kept:
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, work / path.name)
        replace_folder(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_graphs(network: S2Spp, work: Path, say: Say) -> list[tuple[int, int]]:
    """Both graphs into `work`; (channels, stride) of every state."""
    config = network.config
    changing, constant = state_names(network)
    states = (*changing, *constant)
    # Two frames and three objects: an axis of 1 would be frozen by the exporter.
    height, width = 2 * config.multiple, 3 * config.multiple
    frame = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    mask = torch.zeros(3, height, width, dtype=torch.uint8)
    row = torch.tensor([0, 1, 0])
    init = InitGraph(network)
    with torch.no_grad():
        examples: tuple[Tensor, ...] = init(frame, mask, row)
    shapes = [(tensor.shape[1], height // tensor.shape[2]) for tensor in examples]
    tall, wide = torch.export.Dim("h", max=_LONGEST), torch.export.Dim("w", max=_LONGEST)
    objects, frames = torch.export.Dim("N"), torch.export.Dim("F")

    def grid(leading: torch.export.Dim, axis: int, stride: int = 1) -> dict[int, Any]:
        """The dynamic axes of a tensor whose height is `axis`."""
        cells = config.multiple // stride
        return {0: leading, axis: cells * tall, axis + 1: cells * wide}

    say("tracing init.onnx, which opens a session")
    write_onnx(
        init,
        (frame, mask, row),
        (["frame", "mask", "frame_row"], list(states)),
        (grid(frames, 1), grid(objects, 1), {0: objects}),
        work / "init.onnx",
    )
    say("tracing step.onnx, which takes a frame")
    write_onnx(
        StepGraph(network, changing, constant),
        (frame, row, *examples),
        (["frame", "frame_row", *states], ["probability", *(f"next_{state}" for state in changing)]),
        (grid(frames, 1), {0: objects}, tuple(grid(objects, 2, stride) for _, stride in shapes)),
        work / "step.onnx",
    )
    return shapes


def _manifest(
    checkpoint: Checkpoint,
    name: str,
    names: tuple[tuple[str, ...], tuple[str, ...]],
    shapes: list[tuple[int, int]],
) -> dict[str, Any]:
    config: NetworkConfig = checkpoint.network
    changing, constant = names
    return {
        "name": name,
        "pixel_budget": config.pixel_budget,
        "multiple": config.multiple,
        "output_stride": config.output_stride,
        "states": [
            {
                "name": state,
                "shape": [channels, f"H/{stride}", f"W/{stride}"],
                "dtype": str(STATE_DTYPE).removeprefix("torch."),
                "constant": state in constant,
            }
            for state, (channels, stride) in zip((*changing, *constant), shapes, strict=True)
        ],
        "steps_trained": checkpoint.step,
        "network": config.to_dict(),
    }


def round_weights(network: S2Spp) -> None:
    """To what the files hold, so that parity compares the same numbers."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half().float())
