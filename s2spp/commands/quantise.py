"""`s2spp quantise`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quantise(
    bundle: Annotated[Path, typer.Argument(help="Float bundle of `s2spp export`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Bundle folder to write.")],
    data: Annotated[Path, typer.Option(help="A DAVIS or YouTube-VOS folder to calibrate on.", envvar="S2SPP_DATA")],
    split: Annotated[str | None, typer.Option(help="Its split. Default: every sequence.")] = None,
    videos: Annotated[int, typer.Option(help="Calibrate on so many of its videos, evenly picked.", min=1)] = 12,
    scores: Annotated[
        Path | None,
        typer.Option(help="JSON of `s2spp evaluate --json` of this very int8 bundle: run it again with it."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the folder's.")] = None,
) -> None:
    """Write a float bundle as an int8 one: the step graph in 8 bits, for processors with VNNI or dot products.

    Score it before it is used (`s2spp evaluate --bundle OUT`): ranges found on other video than one's own may fit ill.

    Example:

        s2spp quantise bundles/s2spp-light -o bundles/s2spp-light-int8 --data davis2016 --split train
    """
    from rich import print as show

    from model.export.int8 import quantise_bundle
    from s2spp.evaluation import open_dataset
    from s2spp.score_tables import read_scores

    sequences = open_dataset(data, split).sequences
    picked = sequences[:: max(1, len(sequences) // videos)][:videos]
    show(f"calibrating on {len(picked)} videos: {', '.join(sequence.name for sequence in picked)}")
    report = quantise_bundle(bundle, out, name or out.name, picked, read_scores(scores) if scores else {})
    show(
        f"[bold]{report.folder}[/]: {report.megabytes:.1f} MB, {report.convolutions} convolutions, ranges of "
        f"{report.feeds} steps, digest {report.digest[:16]}"
    )
