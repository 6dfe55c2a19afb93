"""Scores a tracker on a dataset: what is scored is what is served. Knows datasets and metrics, no model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.davis import DavisDataset
from model.data.sequence import Sequence
from model.data.youtube_vos import YoutubeVosDataset
from model.metrics import DatasetScore, SequenceScore, score_sequence

Labels = NDArray[np.uint8]
Tracker = Callable[[Iterable[NDArray[np.uint8]], Labels], Iterator[Labels]]
"""frames RGB [H,W,3] and the labels [H,W] of the first -> the labels of every frame, the given ones first."""


def open_dataset(root: Path, split: str | None) -> list[Sequence]:
    """A DAVIS folder, or a YouTube-VOS one (`root`/`split` or `root` holds meta.json). Raises DataError."""
    for folder in (root / split, root) if split else (root,):
        if (folder / "meta.json").exists():
            return YoutubeVosDataset(folder).sequences
    return DavisDataset(root, split).sequences


def copy_first_mask(frames: Iterable[NDArray[np.uint8]], first: Labels) -> Iterator[Labels]:
    """The baseline: every frame gets the first frame's labels."""
    return (first for _ in frames)


def predict(sequence: Sequence, tracker: Tracker) -> Iterator[Labels]:
    """Label maps of every frame. Objects that enter later are followed by a run of their own from the frame that
    first shows them; where runs overlap, the earlier keeps the pixel."""
    starts: dict[int, list[int]] = {}
    for track in sequence.objects:
        starts.setdefault(track.frames[0], []).append(track.object_id)
    runs: list[tuple[int, Iterator[Labels]]] = []
    for start, ids in sorted(starts.items()):
        given = sequence.labels(start)
        first = np.where(np.isin(given, ids), given, 0).astype(np.uint8)
        frames = (sequence.frame(index) for index in range(start, len(sequence)))
        runs.append((start, tracker(frames, first)))
    for index in range(len(sequence)):
        merged: Labels | None = None
        for start, run in runs:
            if index >= start:
                labels = next(run)
                merged = labels if merged is None else np.where(merged == 0, labels, merged)
        yield merged if merged is not None else np.zeros(sequence.frame(index).shape[:2], np.uint8)


@dataclass(frozen=True)
class Scored:
    """A sequence's score, with the frames' mean J (all objects) for finding its worst moments."""

    score: SequenceScore
    frame_j: Mapping[int, float]


def score(
    sequence: Sequence, predictions: Iterable[Labels], keep: Callable[[int, Labels], None] | None = None
) -> Scored:
    """`keep` sees every prediction, by frame index: to write it, or to draw it."""
    frame_j: dict[int, float] = {}
    annotated = set(sequence.annotated)

    def pairs() -> Iterator[tuple[Labels, Labels]]:
        for index, labels in enumerate(predictions):
            if keep is not None:
                keep(index, labels)
            if index in annotated:
                truth = sequence.labels(index)
                union = ((labels > 0) | (truth > 0)).sum()
                frame_j[index] = float(((labels == truth) & (truth > 0)).sum() / union) if union else 1.0
                yield labels, truth

    return Scored(score_sequence(sequence.name, pairs()), frame_j)


def table(split: str, model: str, scores: list[SequenceScore]) -> dict[str, object]:
    """The `--json` form; fractions 0..1."""
    whole = DatasetScore(tuple(scores))
    return {
        "split": split,
        "bundle": model,
        "J": whole.j.mean,
        "F": whole.f.mean,
        "JF": whole.jf,
        "J_recall": whole.j.recall,
        "J_decay": whole.j.decay,
        "F_recall": whole.f.recall,
        "F_decay": whole.f.decay,
        "sequences": [{"name": s.name, "J": s.j.mean, "F": s.f.mean} for s in scores],
    }
