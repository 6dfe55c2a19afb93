"""`s2spp halve`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def halve(
    bundle: Annotated[Path, typer.Argument(help="Float bundle of `s2spp export`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Bundle folder to write.")],
    scores: Annotated[
        Path | None,
        typer.Option(help="JSON of `s2spp evaluate --json` of this very float16 bundle: run it again with it."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the folder's.")] = None,
) -> None:
    """Write a float bundle as a float16 one, for GPUs, and check it against the float one.

    On a CPU it is worked out in float32, and no faster than the bundle it was made of.

    Example:

        s2spp halve bundles/s2spp-light -o bundles/mine-float16
    """
    from rich import print as show

    from model.export.float16 import halve_bundle
    from s2spp.score_tables import read_scores

    measured = read_scores(scores, out, name or out.name) if scores else {}
    report = halve_bundle(bundle, out, name or out.name, measured)
    worst = max(result.pixels for result in report.parity)
    show(
        f"[bold]{report.folder}[/]: {report.megabytes:.1f} MB, at most {worst:.4%} of a frame's pixels differ from the "
        f"float bundle's, digest {report.digest[:16]}"
    )
