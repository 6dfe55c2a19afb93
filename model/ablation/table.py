"""The ablation's table out of saved results: means, bootstrap intervals, and which order they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.ablation.rows import ROWS

_DRAWS = 10_000
Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""row -> its runs' saved results, one for each seed."""


@dataclass(frozen=True)
class Line:
    """One row: means over videos and seeds. `interval`: 95 % of J over draws of the videos; `step`: the same of the
    difference of J to the row `against` which it is set, video by video, over the seeds that both have; None without
    one. `seeds`: J of each run."""

    row: str
    title: str
    against: str | None
    j: float
    interval: tuple[float, float]
    step: tuple[float, float] | None
    f: float
    j_small: float
    j_first: float
    j_last: float
    j_composite: float
    seeds: tuple[float, ...]

    @property
    def order(self) -> str:
        """Whether it is above or below the row `against` which it is set, beyond chance over the videos."""
        if self.step is None:
            return ""
        low, high = self.step
        return "better" if low > 0 else "worse" if high < 0 else "no order shown"


def lines(results: Results) -> list[Line]:
    """In the order of ROWS; rows without a result are left out."""
    table: list[Line] = []
    # By row and seed, over the videos: one run against one with another seed would show the seeds' difference too.
    j_of: dict[str, dict[int, NDArray[np.float64]]] = {}
    for row, compared in ROWS.items():
        runs = results.get(row, ())
        if not runs:
            continue
        videos = [{video["name"]: video for video in run["videos"]} for run in runs]
        names = sorted(videos[0])
        own = j_of[row] = {
            run["seed"]: np.array([found[name]["j"] for name in names]) for run, found in zip(runs, videos, strict=True)
        }
        others = j_of.get(compared.against or "", {})
        both = sorted(own.keys() & others.keys())
        j = np.stack(list(own.values()))
        table.append(
            Line(
                row,
                compared.title,
                compared.against if both else None,
                float(j.mean()),
                _interval(j.mean(axis=0)),
                _interval(np.mean([own[seed] - others[seed] for seed in both], axis=0)) if both else None,
                _mean(videos, "f"),
                _mean(videos, "j_small"),
                _mean(videos, "j_first"),
                _mean(videos, "j_last"),
                float(np.mean([list(run["composites"].values()) for run in runs])),
                tuple(float(seed) for seed in j.mean(axis=1)),
            )
        )
    return table


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of the mean over `values` drawn again with replacement; the same draws for every row."""
    draws = np.random.default_rng(0).integers(len(values), size=(_DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _mean(videos: Sequence[Mapping[str, Mapping[str, Any]]], key: str) -> float:
    return float(np.mean([video[key] for run in videos for video in run.values() if video[key] is not None]))
