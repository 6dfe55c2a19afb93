"""The scores of `s2spp evaluate` as they are printed, written as JSON, and set above the report's pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from model.metrics import DatasetScore, YouTubeVOSScore
from s2spp.evaluation import Scored
from s2spp.seen_unseen import Seen
from s2spp.visibility import Visibility

Results = Mapping[str, Scored | None]
"""Every sequence of a split by name; None: it has no truth to be scored with."""


@dataclass(frozen=True)
class Overall:
    """YouTube-VOS's score of the model and of the first masks copied; seen are the categories of `train_meta`."""

    train_meta: Path
    score: YouTubeVOSScore
    copied: YouTubeVOSScore


def overall(results: Results, seen: Seen) -> Overall:
    """Raises ValueError where a truth shows an object that the split's meta.json does not list."""
    whole, copied = _whole(results)
    score = YouTubeVOSScore.of(whole.sequences, seen.objects)
    return Overall(seen.train_meta, score, YouTubeVOSScore.of(copied.sequences, seen.objects))


def print_scores(console: Console, title: str, results: Results) -> None:
    """J and F beside J of the first masks copied: each sequence's, then the means over all objects."""
    whole, copied = _whole(results)
    shown = Table(title=title)
    for column in ("sequence", "J", "F", "J&F", "J, first mask copied"):
        shown.add_column(column, justify="left" if column == "sequence" else "right")
    for name, one in results.items():
        values = (one.score.j.mean, one.score.f.mean, one.score.jf, one.copied.j.mean) if one else ()
        shown.add_row(name, *(f"{v:.3f}" for v in values))
    shown.add_section()
    shown.add_row("mean", *(f"{v:.3f}" for v in (whole.j.mean, whole.f.mean, whole.jf, copied.j.mean)))
    shown.add_row("recall", f"{whole.j.recall:.3f}", f"{whole.f.recall:.3f}", "", "")
    shown.add_row("decay", f"{whole.j.decay:.3f}", f"{whole.f.decay:.3f}", "", "")
    console.print(shown)
    if unscored := _unscored(results):
        console.print(f"{len(unscored)} of {len(results)} sequences have no ground truth and count for nothing")


def print_visible(console: Console, results: Results) -> None:
    """Of videos with frames in which an object is gone: how often `visible` was right, beside what it would have been
    if it meant that the mask has pixels of the object. Prints nothing where no object is ever gone."""
    counts = {name: one.visible for name, one in results.items() if one and one.visible and one.visible.absent}
    if not counts:
        return
    shown = Table(title="visible: is the object there? (objects in frames)")
    for column in ("sequence", "gone", "said so", "no pixels", "there", "said so", "some pixels"):
        shown.add_column(column, justify="left" if column == "sequence" else "right")
    for name, one in counts.items():
        shown.add_row(name, *map(str, asdict(one).values()))
    shown.add_section()
    shown.add_row("all sequences", *map(str, asdict(_visible(results)).values()))
    console.print(shown)


def print_lasting(console: Console, results: Results) -> None:
    """Of long runs: J once settled, J at the end, and what share of the one is left in the other."""
    shown = Table(title="does it last?")
    for column in ("sequence", "J, frames 20-120", "J, last 100", "share"):
        shown.add_column(column, justify="left" if column == "sequence" else "right")
    parts = {name: lasting(one.frame_j) for name, one in results.items() if one}
    early, late = (sum(part[n] for part in parts.values()) / max(len(parts), 1) for n in (0, 1))
    for name, (settled, end) in [*parts.items(), ("mean", (early, late))]:
        shown.add_row(name, f"{settled:.3f}", f"{end:.3f}", f"{end / settled:.1%}" if settled else "")
    console.print(shown)


def lasting_table(results: Results) -> dict[str, dict[str, float]]:
    """The same for `--json`."""
    names = ("J_20_120", "J_last_100")
    return {name: dict(zip(names, lasting(one.frame_j), strict=True)) for name, one in results.items() if one}


def lasting(by_frame: Mapping[int, float]) -> tuple[float, float]:
    """Mean J over frames 20 to 120, and over the last 100 frames."""
    settled = [j for index, j in by_frame.items() if 20 <= index <= 120]
    end = [j for index, j in by_frame.items() if index > max(by_frame) - 100]
    return sum(settled) / max(len(settled), 1), sum(end) / max(len(end), 1)


def print_overall(console: Console, model: str, scores: Overall) -> None:
    """J and F of seen and of unseen categories, and their mean, of the model and of the first masks copied."""
    shown = Table(title="YouTube-VOS")
    for column in ("", "J_seen", "J_unseen", "F_seen", "F_unseen", "overall"):
        shown.add_column(column, justify="right" if column else "left")
    for name, one in ((model, scores.score), ("first mask copied", scores.copied)):
        shown.add_row(name, *(f"{v:.3f}" for v in _by_name(one).values()))
    console.print(shown)
    console.print(f"seen: the categories of {scores.train_meta}", markup=False, soft_wrap=True)


def json_table(split: str, model: str, results: Results, scores: Overall | None) -> dict[str, object]:
    """The `--json` form; fractions 0..1."""
    whole, copied = _whole(results)
    baseline: dict[str, object] = {"J": copied.j.mean, "F": copied.f.mean, "JF": copied.jf}
    table: dict[str, object] = {
        "split": split,
        "bundle": model,
        "J": whole.j.mean,
        "F": whole.f.mean,
        "JF": whole.jf,
        "J_recall": whole.j.recall,
        "J_decay": whole.j.decay,
        "F_recall": whole.f.recall,
        "F_decay": whole.f.decay,
        "sequences": [{"name": s.name, "J": s.j.mean, "F": s.f.mean} for s in whole.sequences],
        "without_truth": _unscored(results),
        "copy_first_mask": baseline,
    }
    if any(one and one.visible for one in results.values()):
        table["visible"] = asdict(_visible(results))
    if scores is not None:
        table["youtube_vos"] = _by_name(scores.score) | {"train_meta": str(scores.train_meta)}
        baseline["youtube_vos"] = _by_name(scores.copied)
    return table


_OTHERWISE = {
    "loop": "scores of looped videos are not the split's",
    "crop": "scores of cropped videos are not the split's",
    "way": "what is served is plain, and these are scores of another --way",
}


def read_scores(path: Path, *models: Path | str) -> dict[str, float]:
    """A `--json` file of `s2spp evaluate` as a manifest's scores: "tune/J" and so on. `models`: the files, folders and
    names under which the model may have been evaluated. ValueError for another file, for scores of another model, and
    for those of something else than the split itself."""
    try:
        table = json.loads(path.read_text())
        scored = str(table["bundle"])
        found = {f"{table['split']}/{key}": round(float(table[key]), 4) for key in ("J", "F", "JF")}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what `s2spp evaluate --json` writes ({error!r})") from error
    for key, reason in _OTHERWISE.items():
        if key in table:
            raise ValueError(f"{path}: {reason}; evaluate without --{key}")
    if Path(scored).resolve() not in {Path(model).resolve() for model in models}:
        raise ValueError(f"{path} has the scores of {scored}, not of {' or '.join(map(str, models))}")
    return found


def report_rows(results: Results, scores: Overall | None) -> list[tuple[str, float, float]]:
    """(name, J, F) of the whole split, then of YouTube-VOS's parts, then of each sequence; nothing without a score."""
    whole, _ = _whole(results)
    if not whole.sequences:
        return []
    rows = [("all", whole.j.mean, whole.f.mean)]
    if scores is not None:
        rows.append(("seen categories", scores.score.j_seen, scores.score.f_seen))
        rows.append(("unseen categories", scores.score.j_unseen, scores.score.f_unseen))
    return rows + [(s.name, s.j.mean, s.f.mean) for s in whole.sequences]


def frame_j(results: Results) -> dict[str, Mapping[int, float]]:
    """J of each annotated frame, by sequence."""
    return {name: one.frame_j for name, one in results.items() if one}


def _whole(results: Results) -> tuple[DatasetScore, DatasetScore]:
    """The model's, and that of the first masks copied."""
    scored = [one for one in results.values() if one]
    return DatasetScore(tuple(one.score for one in scored)), DatasetScore(tuple(one.copied for one in scored))


def _visible(results: Results) -> Visibility:
    return sum((one.visible for one in results.values() if one and one.visible), Visibility())


def _unscored(results: Results) -> list[str]:
    return [name for name, one in results.items() if one is None]


def _by_name(score: YouTubeVOSScore) -> dict[str, float]:
    return {
        "J_seen": score.j_seen,
        "J_unseen": score.j_unseen,
        "F_seen": score.f_seen,
        "F_unseen": score.f_unseen,
        "overall": score.overall,
    }
