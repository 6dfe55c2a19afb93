"""`s2spp evaluate`"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.data.sequence import Sequence
    from s2spp.evaluation import Tracker


def evaluate(
    data: Annotated[Path, typer.Option(help="A DAVIS folder, or a YouTube-VOS one.", envvar="S2SPP_DATA")],
    split: Annotated[str | None, typer.Option(help="Split: a list of sequences. Default: every sequence.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Bundle folder, or the name of a shipped one.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Score a checkpoint with torch instead.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table here too.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the predicted masks here: OUT/SEQUENCE/00000.png.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with overlays here.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the model; 0: one per core.")] = 0,
) -> None:
    """Score a model on video with masks: J, F, and beside it what copying the first mask would score.

    A bundle is scored through the same engine that serves it: resizing, merging and all.

    Examples:

        s2spp evaluate --data davis2016 --split tune

        s2spp evaluate --checkpoint runs/light/checkpoint.pt --data davis2016 --split tune --report tune.html
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table

    from model.metrics import DatasetScore
    from s2spp.evaluation import copy_first_mask, open_dataset, predict, score, table
    from s2spp.json_file import write_json
    from s2spp.labels import save_labels
    from s2spp.report import SequenceReport, write_report

    if bundle and checkpoint:
        raise ValueError("give either --bundle or --checkpoint")
    name = str(checkpoint) if checkpoint else bundle or "s2spp-light"
    sequences = open_dataset(data, split)
    scored, baseline, reports, frame_j = [], [], [], {}
    with ExitStack() as stack:
        tracker = _checkpoint_tracker(checkpoint, threads) if checkpoint else _bundle_tracker(stack, name, threads)
        progress = stack.enter_context(
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
        )
        task = progress.add_task("frames", total=sum(len(sequence) for sequence in sequences))
        for sequence in sequences:
            pictures = SequenceReport(sequence.name, len(sequence))

            def keep(
                index: int,
                labels: NDArray[np.uint8],
                sequence: Sequence = sequence,
                pictures: SequenceReport = pictures,
            ) -> None:
                progress.update(task, advance=1, description=sequence.name)
                if out is not None:
                    save_labels(out / sequence.name / f"{sequence.frame_paths[index].stem}.png", labels)
                if report is not None and pictures.wants(index):
                    pictures.add(index, sequence.frame(index), labels)

            result = score(sequence, predict(sequence, tracker), keep)
            scored.append(result.score)
            frame_j[sequence.name] = dict(result.frame_j)
            baseline.append(score(sequence, predict(sequence, copy_first_mask)).score)
            reports.append(pictures)
    whole, copied = DatasetScore(tuple(scored)), DatasetScore(tuple(baseline))
    shown = Table(title=f"{name} on {data.name}{f' / {split}' if split else ''}")
    for column in ("sequence", "J", "F", "J&F", "J, first mask copied"):
        shown.add_column(column, justify="left" if column == "sequence" else "right")
    for one, first in zip(scored, baseline, strict=True):
        shown.add_row(one.name, *(f"{v:.3f}" for v in (one.j.mean, one.f.mean, one.jf, first.j.mean)))
    shown.add_section()
    shown.add_row("mean", *(f"{v:.3f}" for v in (whole.j.mean, whole.f.mean, whole.jf, copied.j.mean)))
    shown.add_row("recall", f"{whole.j.recall:.3f}", f"{whole.f.recall:.3f}", "", "")
    shown.add_row("decay", f"{whole.j.decay:.3f}", f"{whole.f.decay:.3f}", "", "")
    Console().print(shown)
    if json_file is not None:
        result_table = table(split or "all", name, scored) | {
            "copy_first_mask": {"J": copied.j.mean, "F": copied.f.mean, "JF": copied.jf}
        }
        write_json(json_file, result_table)
    if report is not None:
        rows = [("all", whole.j.mean, whole.f.mean), *((s.name, s.j.mean, s.f.mean) for s in scored)]
        write_report(report, f"{name} on {data.name} {split or ''}", rows, reports, frame_j)
        Console().print(f"report: {report}")


def _checkpoint_tracker(path: Path, threads: int) -> Tracker:
    import torch

    from model.predict import track
    from model.training.checkpoint import Checkpoint

    if threads:
        torch.set_num_threads(threads)
    network = Checkpoint.load(path).model()
    return lambda frames, first: track(network, frames, first)


def _bundle_tracker(stack: ExitStack, name: str, threads: int) -> Tracker:
    from s2spp.inprocess import InProcess

    engine = stack.enter_context(InProcess(name, threads))
    return lambda frames, first: (result.labels for result in engine.track(frames, first))
