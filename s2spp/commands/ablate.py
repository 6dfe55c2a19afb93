"""`s2spp ablate`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.ablation.rows import Row
    from model.ablation.table import Difference, Estimate, Tables


def ablate(
    data: Annotated[
        Path, typer.Option(help="Folder that holds davis2016, stills, backbones.", envvar="S2SPP_DATA")
    ] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder of the runs and their results.")] = Path("runs/ablation"),
    steps: Annotated[int, typer.Option(help="Training steps of each row.", min=1, metavar="N")] = 1500,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, metavar="N", help="Stop after so long; the same command goes on later.")
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
    import sys
    import time

    from rich.console import Console

    from model.ablation.rows import ROWS, all_rows
    from model.ablation.table import tables
    from s2spp.json_file import write_json

    # In a file or a pipe there is no width to keep to.
    console = Console() if sys.stdout.isatty() else Console(width=144)
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
    if not results:
        if table_only:
            raise ValueError(f"{out}: no saved result in it (ROW-SEED/result.json)")
        console.print("no row is done yet; the same command goes on")
        return
    table = tables(results)
    _show(console, table)
    if json_file is not None:
        write_json(json_file, {"steps": _steps(results), **_as_json(table)})


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
    if row.weights == row.name:
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


def _show(console: Any, table: Tables) -> None:
    """The rows, then each less the row that it is set against; below, how to read both."""
    from rich.table import Table

    from model.ablation.table import MEASURES

    rows = Table(title="ablation: means over held-out videos, and half of their 95 % intervals")
    steps = Table(title="differences, over the seeds that both rows have")
    for shown, columns in ((rows, ("row",)), (steps, ("row", "less", "seeds"))):
        for column in columns:
            shown.add_column(column, no_wrap=True)
        for name in MEASURES.values():
            shown.add_column(name, justify="right")
    rows.add_column("J of each seed")
    steps.add_column("order of J")
    for line in table.lines:
        seeds = ", ".join(f"{j:.3f}" for j in line.seeds)
        rows.add_row(f"[bold]{line.row}[/]\n{line.title}", *_cells(line.values), seeds)
        if line.difference is not None:
            steps.add_row(f"[bold]{line.row}[/]", *_step_cells(line.difference))
    if table.ends is not None:
        steps.add_section()
        steps.add_row("[bold]the two ends[/]", *_step_cells(table.ends))
    console.print(rows)
    console.print(steps)
    console.print(_legend(table), markup=False)


def _cells(values: Mapping[str, Estimate], sign: str = "") -> list[str]:
    """Empty for what no video has."""
    from model.ablation.table import MEASURES

    found = (values.get(measure) for measure in MEASURES)
    return ["" if one is None else f"{one.mean:{sign}.3f} ±{one.half:.3f}" for one in found]


def _step_cells(step: Difference) -> list[str]:
    seeds = ", ".join(str(seed) for seed in step.seeds)
    return [step.less, seeds, *_cells(step.values, "+"), step.order]


def _legend(table: Tables) -> str:
    scatter = table.scatter
    if scatter.freedom:
        seeds = (
            f"the training's seed (J of a run has a standard deviation of {scatter.variance**0.5:.3f} between seeds, "
            f"from {scatter.freedom} degrees of freedom: the rows with several seeds, pooled, and taken for the others "
            "too)"
        )
    else:
        seeds = "not the training's seed: no row has two seeds, so no order of two trainings can be shown"
    return (
        f"Intervals hold chance over the videos (bootstrap) and {seeds}. A row that follows with the weights of the "
        "other is the same training: its difference holds chance over the videos only, and is one of these weights. "
        "An order is claimed of J alone, where the interval leaves 0 out; by chance one comparison in twenty does. "
        "How this is worked out: model/ablation/table.py."
    )


def _as_json(table: Tables) -> dict[str, Any]:
    from dataclasses import asdict

    def step(difference: Difference | None) -> dict[str, Any] | None:
        return None if difference is None else asdict(difference) | {"order": difference.order}

    return {
        "rows": [asdict(line) | {"difference": step(line.difference)} for line in table.lines],
        "ends": step(table.ends),
        "scatter_of_j": asdict(table.scatter),
    }
