"""The ablation's tables out of saved results: means, intervals, and which order they show.

Two things differ when an experiment is done again: the videos, and the seed of the training. Every interval has both:

- videos: their mean is drawn again with replacement (a bootstrap), each draw stretched by sqrt(n / chi2(n - 1)), which
  makes it as wide as ten videos ask for (the plain bootstrap is as if their scatter were known).
- seeds: most rows are trained once, so their own scatter is not known. It is taken from the rows that have several
  seeds: the variance of a row's mean between its seeds, pooled over them (S2, with as many degrees of freedom as there
  are seeds less rows). A mean of k runs gets a draw of sqrt(S2 / k) * t added, the difference of two rows one of
  sqrt(2 S2 / k) * t. Runs of one seed see the same batches, so their difference scatters less than that, if at all.

A row that follows with the weights of the other (its way is not plain) is the same training: nothing is added to that
difference, and its order is one of these weights. Where no row has several seeds, nothing else has an order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.ablation.rows import ENDS, ROWS

_DRAWS = 10_000
MEASURES = {
    "j": "J",
    "f": "F",
    "j_small": "J small",
    "j_first": "J first 10",
    "j_last": "J last 10",
    "j_composite": "J of 2-3",
}
"""What is measured of each video; the last of each composite."""

Results = Mapping[str, Sequence[Mapping[str, Any]]]
"""row -> its runs' saved results, one for each seed."""
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """A row minus another (`less`), measure by measure, over the `seeds` that both have. `judged`: whether it is known
    how far apart two runs of one row are, or that does not matter."""

    less: str
    seeds: tuple[int, ...]
    values: Mapping[str, Estimate]
    judged: bool

    @property
    def order(self) -> str:
        """Whether the row has more or less J, beyond chance."""
        j = self.values["j"]
        if not self.judged:
            return "not judged"
        return "better" if j.low > 0 else "worse" if j.high < 0 else "no order shown"


@dataclass(frozen=True)
class Line:
    """A row: its measures over all its seeds, J of each run, and its difference to the row that it is set against."""

    row: str
    title: str
    seeds: tuple[float, ...]
    values: Mapping[str, Estimate]
    difference: Difference | None


@dataclass(frozen=True)
class Scatter:
    """The variance of a row's mean between seeds, and its degrees of freedom (0: not known)."""

    variance: float
    freedom: int


@dataclass(frozen=True)
class Tables:
    """`lines` in the order of ROWS, rows without a result left out. `ends`: the last of ENDS less the first, where both
    have been run. `scatter`: of J."""

    lines: tuple[Line, ...]
    ends: Difference | None
    scatter: Scatter


def tables(results: Results) -> Tables:
    """Raises ValueError where runs were not scored on the same videos."""
    _refuse_other_videos(results)
    runs = {row: {run["seed"]: _measured(run) for run in results[row]} for row in ROWS if results.get(row)}
    # Those that the videos have: not all have small objects.
    measures = [
        measure for measure in MEASURES if any(measure in run for seeds in runs.values() for run in seeds.values())
    ]
    scatters = {measure: scatter([_means(seeds, measure) for seeds in runs.values()]) for measure in measures}
    first, last = ENDS
    return Tables(
        tuple(_line(row, runs, scatters) for row in runs),
        _difference(runs[last], runs[first], first, scatters) if {first, last} <= runs.keys() else None,
        scatters["j"],
    )


_Seeds = Mapping[int, Mapping[str, Values]]
"""seed -> measure -> a value for each video."""


def _line(row: str, runs: Mapping[str, _Seeds], scatters: Mapping[str, Scatter]) -> Line:
    own, compared = runs[row], ROWS[row]
    other = compared.against
    same = compared.way != "plain" and other is not None and compared.network == ROWS[other].network
    values = {measure: estimate(_stacked(own.values(), measure), one) for measure, one in scatters.items()}
    return Line(
        row,
        compared.title,
        tuple(float(j) for j in _means(own, "j")),
        values,
        _difference(own, runs.get(other, {}), other, scatters, same=same) if other is not None else None,
    )


def _difference(
    own: _Seeds, others: _Seeds, less: str, scatters: Mapping[str, Scatter], *, same: bool = False
) -> Difference | None:
    """None where no seed is in both: one run against one with another seed would show the seeds' difference too.
    `same`: both are of the same training."""
    both = sorted(own.keys() & others.keys())
    if not both:
        return None
    values = {
        measure: estimate(
            _stacked([own[seed] for seed in both], measure) - _stacked([others[seed] for seed in both], measure),
            None if same else one,
            rows=2,
        )
        for measure, one in scatters.items()
    }
    return Difference(less, tuple(both), values, same or scatters["j"].freedom > 0)


def scatter(means: Sequence[Sequence[float]]) -> Scatter:
    """Of one measure, out of its mean in each run of each row: pooled over the rows with several seeds."""
    several = [row for row in means if len(row) > 1]
    freedom = sum(len(row) - 1 for row in several)
    squares = sum((len(row) - 1) * float(np.var(row, ddof=1)) for row in several)
    return Scatter(squares / freedom if freedom else 0.0, freedom)


def estimate(values: Values, scattered: Scatter | None, rows: int = 1) -> Estimate:
    """`values` [seeds, videos] of one row, or differences of two (`rows`); the same draws for every row."""
    rng = np.random.default_rng(0)
    seeds, count = values.shape
    videos = values.mean(axis=0)
    mean = float(videos.mean())
    drawn = videos[rng.integers(count, size=(_DRAWS, count))].mean(axis=1) - mean
    if count > 1:
        drawn *= np.sqrt(count / rng.chisquare(count - 1, _DRAWS))
    if scattered is not None and scattered.freedom:
        drawn += np.sqrt(rows * scattered.variance / seeds) * rng.standard_t(scattered.freedom, _DRAWS)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(mean, mean + float(low), mean + float(high))


def _measured(run: Mapping[str, Any]) -> dict[str, Values]:
    """A value for each video that has one (not all have small objects): in every run the same ones."""
    ordered = sorted(run["videos"], key=lambda video: str(video["name"]))
    values = {m: [video[m] for video in ordered if video[m] is not None] for m in MEASURES if m != "j_composite"}
    values["j_composite"] = [run["composites"][name] for name in sorted(run["composites"])]
    return {measure: np.array(each) for measure, each in values.items() if each}


def _stacked(runs: Iterable[Mapping[str, Values]], measure: str) -> Values:
    return np.stack([run[measure] for run in runs])


def _means(seeds: _Seeds, measure: str) -> list[float]:
    return [float(run[measure].mean()) for run in seeds.values()]


def _refuse_other_videos(results: Results) -> None:
    scored = {
        (row, run["seed"]): (
            sorted((video["name"], video["j_small"] is None) for video in run["videos"]),
            sorted(run["composites"]),
        )
        for row, runs in results.items()
        for run in runs
    }
    first = next(iter(scored), None)
    for one in scored:
        if scored[one] != scored[first]:  # type: ignore[index]
            raise ValueError(f"{one[0]}, seed {one[1]}, was scored on other videos than {first}: they do not compare")
