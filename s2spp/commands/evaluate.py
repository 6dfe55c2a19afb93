"""`s2spp evaluate`"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

    from model.data.davis import DavisDataset
    from model.data.sequence import Sequence as Video
    from model.data.youtube_vos import YoutubeVosDataset
    from model.predict import Way
    from s2spp.evaluation import Prediction, Scored, Tracker
    from s2spp.report import SequenceReport
    from s2spp.seen_unseen import Seen


def evaluate(
    data: Annotated[
        Path,
        typer.Option(help="A DAVIS folder, a YouTube-VOS one, or one that holds davis2016.", envvar="S2SPP_DATA"),
    ],
    split: Annotated[str | None, typer.Option(help="Split: a list of sequences. Default: every sequence.")] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Bundle folder, the name of a shipped one, or auto, as for serve (default).")
    ] = None,
    loop: Annotated[
        int | None,
        typer.Option(help="Play every video forth and back for so many frames: do masks last?", min=140, metavar="N"),
    ] = None,
    crop: Annotated[str | None, typer.Option(help="Crop videos to this shape first, such as 9:16 or 1:1.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Score a checkpoint with torch instead.")] = None,
    way: Annotated[
        Literal["plain", "refined", "following"],
        typer.Option(
            metavar="WAY",
            help="Of a checkpoint: plain, as it is; refined, edges at the frame's resolution; or following windows.",
        ),
    ] = "plain",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table here too.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the predicted masks here: OUT/SEQUENCE/00000.png.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with overlays here: NAME.html.")] = None,
    train_meta: Annotated[
        Path | None,
        typer.Option(help="YouTube-VOS: this meta.json's categories are seen. Default: SPLIT/../train/meta.json."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Cores for the model; 0: all that there are.")] = 0,
) -> None:
    """Score a model on video with masks: J, F, and beside it what copying the first mask would score.

    A bundle is scored through the same engine that serves it: resizing, merging and all.

    A YouTube-VOS split with all its annotations also gets that benchmark's overall score, the mean of J and F over
    seen and over unseen categories. Where only the first masks are published, as in its validation split, --out writes
    what its server takes.

    Examples:

        s2spp evaluate --data davis2016 --split tune

        s2spp evaluate --checkpoint runs/light/checkpoint.pt --data davis2016 --split tune --report tune.html

        s2spp evaluate --data youtube-vos --split valid --out submission/Annotations
    """
    from rich.console import Console

    from s2spp import score_tables as tables
    from s2spp.evaluation import bundle_tracker, open_dataset, scorable
    from s2spp.inprocess import InProcess
    from s2spp.json_file import write_json
    from s2spp.report import SequenceReport, write_report

    if bundle and checkpoint:
        raise ValueError("give either --bundle or --checkpoint")
    if way != "plain" and not checkpoint:
        raise ValueError("--way goes with --checkpoint: what is served is plain")
    if loop and out:
        raise ValueError("--out writes a mask per frame of the video itself: leave --loop out")
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--report writes an HTML page, NAME.html; got {report}")
    console = Console()
    dataset = open_dataset(data, split)
    dataset.sequences = [_shaped(video, loop, crop) for video in dataset.sequences]
    has_truth = any(scorable(video) for video in dataset.sequences)
    if not has_truth:
        _refuse_scores(dataset.root, json_file, out or report)
    seen = _seen(console, dataset, train_meta) if has_truth else None
    pictures = {video.name: SequenceReport(video) for video in dataset.sequences} if report else {}
    with ExitStack() as stack:
        if checkpoint:
            name, tracker = str(checkpoint), _checkpoint_tracker(checkpoint, threads, way)
        else:
            engine = stack.enter_context(InProcess(bundle, threads))
            name = bundle if bundle and bundle != "auto" else engine.model
            tracker = bundle_tracker(engine)
        results = _run(dataset.sequences, tracker, out, pictures)
    played: dict[str, object] = {"loop": loop} if loop else {}
    played |= {"crop": crop} if crop else {}
    played |= {"way": way} if way != "plain" else {}
    shape = "".join(f", {what}" for what in (crop, f"looped to {loop} frames" if loop else None) if what)
    shown = name if way == "plain" else f"{name} ({way})"
    # A YouTube-VOS dataset's own root is its split.
    folder = data if split and dataset.root == data / split else dataset.root
    title = f"{shown} on {folder.name}{f' / {split}' if split else ''}{shape}"
    if has_truth:
        tables.print_scores(console, title, results)
        tables.print_visible(console, results)
        if loop:
            tables.print_lasting(console, results)
            played["lasting"] = tables.lasting_table(results)
    else:
        console.print(_no_truth(dataset.root) + (f"; predictions: {out}" if out else ""), markup=False, soft_wrap=True)
    scores = tables.overall(results, seen) if seen else None
    if scores is not None:
        tables.print_overall(console, shown, scores)
    if json_file is not None:
        write_json(json_file, tables.json_table(split or "all", name, results, scores) | played)
    if report is not None:
        write_report(report, title, tables.report_rows(results, scores), pictures.values(), tables.frame_j(results))
        console.print(f"report: {report}")


def _shaped(video: Video, loop: int | None, crop: str | None) -> Video:
    if crop:
        width, _, height = crop.partition(":")
        if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
            raise ValueError(f"--crop takes width:height, such as 9:16; got {crop!r}")
        video = video.cropped(int(width) / int(height))
    return video.looped(loop) if loop else video


def _no_truth(root: Path) -> str:
    return f"no score: {root} has no ground truth, only the masks that give the objects, like YouTube-VOS's valid split"


def _refuse_scores(root: Path, json_file: Path | None, masks: Path | None) -> None:
    """Before the model is run: a split without truth is followed for its masks only."""
    if json_file or not masks:
        without = " and without --json" if json_file else ""
        raise ValueError(f"{_no_truth(root)}; only predictions can be written, with --out FOLDER{without}")


def _seen(console: Console, dataset: DavisDataset | YoutubeVosDataset, train_meta: Path | None) -> Seen | None:
    """What was asked for and cannot be had is an error; what was only looked for is told."""
    from model.data.read import DataError
    from model.data.youtube_vos import YoutubeVosDataset
    from s2spp.seen_unseen import seen_objects, train_meta_beside

    if not isinstance(dataset, YoutubeVosDataset):
        if train_meta is not None:
            raise ValueError(f"--train-meta goes with a YouTube-VOS folder; {dataset.root} is a DAVIS one")
        return None
    if train_meta is not None:
        return seen_objects(dataset, train_meta)
    try:
        found = train_meta_beside(dataset)
        if found is not None:
            return seen_objects(dataset, found)
        reason = f"which categories are seen is not known; no train/meta.json lies beside {dataset.root}"
    except DataError as error:
        reason = str(error)
    console.print(f"no YouTube-VOS overall score: {reason} (see --train-meta)", markup=False, soft_wrap=True)
    return None


def _run(
    videos: Sequence[Video], tracker: Tracker, out: Path | None, pictures: Mapping[str, SequenceReport]
) -> dict[str, Scored | None]:
    """Follows and scores every video; masks go to `out`, overlays to those of `pictures`, as they come."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from s2spp.evaluation import predict, score
    from s2spp.labels import save_labels

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("frames", total=sum(len(video) for video in videos))

        def watched(video: Video) -> Iterator[Prediction]:
            for index, one in enumerate(predict(video, tracker)):
                progress.update(task, advance=1, description=video.name)
                if out is not None:
                    save_labels(out / video.name / f"{video.frame_paths[index].stem}.png", one.labels)
                if video.name in pictures:
                    pictures[video.name].add(one.labels)
                yield one

        return {video.name: score(video, watched(video)) for video in videos}


def _checkpoint_tracker(path: Path, threads: int, way: Way) -> Tracker:
    import torch

    from model.predict import track
    from model.training.checkpoint import Checkpoint
    from s2spp.evaluation import Prediction

    if threads:
        torch.set_num_threads(threads)
    network = Checkpoint.load(path).model()
    return lambda frames, first: (Prediction(labels) for labels in track(network, frames, first, way))
