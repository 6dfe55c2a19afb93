"""`s2spp quantise`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def quantise(
    bundle: Annotated[Path, typer.Argument(help="Float bundle of `s2spp export`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Bundle folder to write.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Calibrate on this DAVIS or YouTube-VOS folder, or the davis2016 in it; not on its tune videos.",
            envvar="S2SPP_DATA",
        ),
    ],
    split: Annotated[str | None, typer.Option(help="Its split. Default: every sequence.")] = None,
    videos: Annotated[
        int, typer.Option(help="Calibrate on so many of its videos, evenly picked.", min=1, metavar="N")
    ] = 12,
    scores: Annotated[
        Path | None,
        typer.Option(help="JSON of `s2spp evaluate --json` of this very int8 bundle: run it again with it."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the folder's.")] = None,
) -> None:
    """Write a float bundle as an int8 one: its convolutions in 8 bits, for processors with VNNI or dot products.

    Score it before it is used (`s2spp evaluate --bundle OUT`): ranges found on other video than one's own may fit ill.

    Example:

        s2spp quantise bundles/s2spp-light -o bundles/s2spp-light-int8 --data davis2016 --split train
    """
    import numpy as np
    from rich import print as show

    from model.data.davis import trainable
    from model.export.int8 import quantise_bundle
    from s2spp.evaluation import open_dataset
    from s2spp.score_tables import read_scores
    from s2spp.words import counted

    sequences = trainable(open_dataset(data, split).sequences)
    if not sequences:
        raise ValueError(f"{data}: only videos of the tune split, which scores models and calibrates none")
    ends = np.linspace(0, len(sequences) - 1, min(videos, len(sequences)))
    picked = [sequences[round(place)] for place in ends]
    show(f"calibrating on {counted(len(picked), 'video')}: {', '.join(sequence.name for sequence in picked)}")
    measured = read_scores(scores, out, name or out.name) if scores else {}
    report = quantise_bundle(bundle, out, name or out.name, picked, measured)
    show(
        f"[bold]{report.folder}[/]: {report.megabytes:.1f} MB, {report.convolutions} convolutions, ranges of "
        f"{report.feeds} steps, {len(report.states_in_bytes)} states in 8 bits, digest {report.digest[:16]}"
    )
