"""`s2spp export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of `s2spp train`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Bundle folder to write.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the folder's.")] = None,
    training_data: Annotated[str, typer.Option(help="What it was trained on, for the model card.")] = "not stated",
    licence: Annotated[str, typer.Option(help="Terms of the weights, for the model card.")] = "not stated",
    scores: Annotated[
        Path | None, typer.Option(help="JSON file of `s2spp evaluate --json`: the measured J and F go in.")
    ] = None,
) -> None:
    """Write a checkpoint as a model bundle (manifest, graphs, weights) and check it against torch.

    A bundle whose masks differ from torch's is not written.

    Example:

        s2spp export runs/light/checkpoint.pt -o bundles/s2spp-light --scores tune.json
    """
    from rich import print as show
    from rich.console import Console

    from model.export import export_bundle
    from model.export.bundle import Card
    from model.training.checkpoint import Checkpoint
    from s2spp.score_tables import read_scores
    from s2spp.words import counted

    measured = read_scores(scores, checkpoint, out, name or out.name) if scores is not None else {}
    card = Card(training_data, licence, measured)
    say = Console(stderr=True, highlight=False, soft_wrap=True).print
    report = export_bundle(Checkpoint.load(checkpoint), out, name or out.name, card, say)
    for parity in report.parity:
        show(
            f"parity with torch, {counted(parity.batch, 'object')}, {parity.frames} frames: probability differs by at "
            f"most {parity.probability:.1e}, masks in {parity.pixels:.3%} of pixels"
        )
    show(f"[bold]{report.folder}[/]: {report.megabytes:.1f} MB, digest {report.digest[:16]}")
