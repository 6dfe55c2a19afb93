"""`s2spp ablate`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from model.ablation.rows import Row
    from model.ablation.table import Line


def ablate(
    data: Annotated[
        Path, typer.Option(help="Folder that holds davis2016, stills, backbones.", envvar="S2SPP_DATA")
    ] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder of the runs and their results.")] = Path("runs/ablation"),
    steps: Annotated[int, typer.Option(help="Training steps of each row.", min=1)] = 1500,
    max_minutes: Annotated[
        float | None, typer.Option(help="Stop after so long; the same command goes on later.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run this row alone; again for more. So two processes can share OUT."),
    ] = None,
    table_only: Annotated[bool, typer.Option("--table-only", help="Show what there is; train nothing.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table here too.")] = None,
) -> None:
    """The paper's ablation, and what goes beyond the paper: train and score every row on the same data, and compare.

    Every row is one small network, trained for the same steps, scored on the tune split and six training videos that
    are left out. Rows that are done are not done again; their results are OUT/ROW/result.json.

    Examples:

        s2spp ablate --data DATA --max-minutes 120        again to go on

        s2spp ablate --data DATA --table-only --json ablation.json
    """
    import time
    from dataclasses import asdict

    from rich.console import Console

    from model.ablation.rows import ROWS, all_rows
    from model.ablation.table import lines
    from s2spp.json_file import write_json

    console = Console()
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    unknown = set(only or ()) - ROWS.keys()
    if unknown:
        raise ValueError(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if table_only and only:
        raise ValueError("--table-only shows every row that there is: leave --only out")
    if not table_only:
        _refuse_other_steps(_saved(out), steps)
        for row in all_rows():
            if only and row.key not in only:
                continue
            left = None if deadline is None else (deadline - time.monotonic()) / 60
            if left is not None and left <= 0:
                break
            _run(row, data, out, steps, left, console)
    results = _saved(out)
    table = lines(results)
    _show(console, table)
    if json_file is not None:
        write_json(
            json_file, {"steps": _steps(results), "rows": [asdict(line) | {"order": line.order} for line in table]}
        )


def _run(row: Row, data: Path, out: Path, steps: int, minutes: float | None, console: Any) -> None:
    """Train and score one row, as far as the time goes."""
    from model.ablation.rows import HELD_OUT, training
    from model.ablation.scoring import composites, score_composite, score_video
    from model.data.davis import DavisDataset
    from model.training.checkpoint import Checkpoint
    from model.training.loop import RunOptions, train
    from s2spp.json_file import write_json

    if (out / row.name / "result.json").exists():
        return
    if row.weights != row.name and not (out / row.weights / "result.json").exists():
        console.print(f"{row.name} waits for {row.weights}, whose weights it follows with")
        return
    console.print(f"[bold]{row.name}[/]")
    backbone = data / "backbones" / "mobilenet_v2_imagenet.safetensors"
    weights = out / row.weights
    options = RunOptions(data=data, out=weights, encoder_weights=backbone, max_minutes=minutes)
    if not train(training(row, steps), options).finished:
        return
    network, way = Checkpoint.load(weights / "checkpoint.pt").model(), row.compared.way
    videos = [v for v in DavisDataset(data / "davis2016", "train").sequences if v.name in HELD_OUT]
    videos += DavisDataset(data / "davis2016", "tune").sequences
    result = {
        "row": row.key,
        "seed": row.seed,
        "steps": steps,
        "videos": [score_video(network, video, way).to_dict() for video in videos],
        "composites": {
            name: score_composite(network, frames, labels, way) for name, frames, labels in composites(videos)
        },
    }
    # Whole or not at all: what is there counts as done.
    write_json(out / row.name / "result.partial", result)
    (out / row.name / "result.partial").replace(out / row.name / "result.json")


def _saved(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The results of each row, one for each seed."""
    import json

    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob("*/result.json")):
        result = json.loads(path.read_text())
        found.setdefault(result["row"], []).append(result)
    return found


def _steps(results: dict[str, list[dict[str, Any]]]) -> list[int]:
    return sorted({run["steps"] for runs in results.values() for run in runs})


def _refuse_other_steps(results: dict[str, list[dict[str, Any]]], steps: int) -> None:
    """Before hours are spent on a row that compares with none."""
    if _steps(results) not in ([], [steps]):
        raise ValueError(f"the rows there are were trained for {_steps(results)} steps, not {steps}: use another --out")


def _show(console: Any, table: list[Line]) -> None:
    from rich.table import Table

    shown = Table(title="ablation: J over held-out videos, 95 % intervals over videos")
    for column in (
        "row",
        "J",
        "interval",
        "J less that of",
        "F",
        "J small",
        "J first 10",
        "J last 10",
        "J of 2-3",
    ):
        shown.add_column(column, justify="left" if column in ("row", "J less that of") else "right")
    for line in table:
        step = "" if line.step is None else f"{line.against}: {line.step[0]:+.3f} .. {line.step[1]:+.3f}, {line.order}"
        seeds = f" ({', '.join(f'{j:.3f}' for j in line.seeds)})" if len(line.seeds) > 1 else ""
        values = (line.f, line.j_small, line.j_first, line.j_last, line.j_composite)
        interval = f"{line.interval[0]:.3f} .. {line.interval[1]:.3f}"
        shown.add_row(
            f"[bold]{line.row}[/]\n{line.title}",
            f"{line.j:.3f}{seeds}",
            interval,
            step,
            *(f"{value:.3f}" for value in values),
        )
    console.print(shown)
