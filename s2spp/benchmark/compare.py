"""Two results side by side. Machines differ, and one machine swings by 2 within an hour: so what is compared are shares
of the bare model, which each run measured in the same minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from s2spp.benchmark.machine import disturbed
from s2spp.benchmark.result import Result, Run, share_noise

NOISE = 0.05
"""A share that changes by less tells nothing."""
Verdict = Literal["faster", "slower", "same", "unknown"]


@dataclass(frozen=True)
class Side:
    """One cell of one run. `share`: its frames a second as a part of the bare model's; `times`: its milliseconds in
    the bare model's. None where that run left the bare model out."""

    fps: float
    ms: float
    share: float | None
    times: float | None


@dataclass(frozen=True)
class Change:
    """`gain`: 0.1 for a tenth faster, -0.1 for a tenth slower, None where it cannot be told; `noise`: how much of it
    says nothing, None where a run was too short to tell."""

    gain: float | None
    noise: float | None

    @property
    def verdict(self) -> Verdict:
        if self.gain is None or self.noise is None:
            return "unknown"
        if abs(self.gain) <= self.noise:
            return "same"
        return "faster" if self.gain > 0 else "slower"


@dataclass(frozen=True)
class Pair:
    """A cell that both runs have. `rate`: of the share of raw's frames a second; `latency`: of the milliseconds in
    raw's."""

    path: str
    sessions: int
    objects: int
    old: Side
    new: Side
    rate: Change
    latency: Change


@dataclass(frozen=True)
class Comparison:
    """`warnings`: what makes the figures themselves, or even the shares, another thing in the two runs. `missing`: how
    many cells only one of them has."""

    pairs: Sequence[Pair]
    warnings: Sequence[str]
    missing: int


def compare(old: Result, new: Result) -> Comparison:
    pairs = []
    for run in new.runs:
        before = old.run(run.cell)
        if before is not None:
            pairs.append(_pair(old, before, new, run))
    cells = {run.cell for run in old.runs} ^ {run.cell for run in new.runs}
    return Comparison(pairs, _warnings(old, new), len(cells))


def _pair(old: Result, before: Run, new: Result, now: Run) -> Pair:
    was, is_now = _side(old, before), _side(new, now)
    rate = latency = None
    if now.path != "raw":  # which is what the others are measured by
        rate = is_now.share / was.share - 1 if is_now.share and was.share else None
        latency = was.times / is_now.times - 1 if is_now.times and was.times else None
    sides = (old, before), (new, now)
    return Pair(
        now.path,
        now.sessions,
        now.objects,
        was,
        is_now,
        Change(rate, _noise(sides, lambda run: run.fps_slices)),
        Change(latency, _noise(sides, lambda run: run.ms_slices)),
    )


def _noise(sides: Iterable[tuple[Result, Run]], slices: Callable[[Run], Sequence[float]]) -> float | None:
    """Of the noisier side."""
    noise = NOISE
    for result, run in sides:
        raw = result.raw_of(run)
        strayed = share_noise(slices(run), slices(raw)) if raw else None
        if strayed is None:
            return None
        noise = max(noise, strayed)
    return noise


def _side(result: Result, run: Run) -> Side:
    raw = result.raw_of(run)
    return Side(run.fps, run.ms_p50, result.share_of_raw(run), run.ms_p50 / raw.ms_p50 if raw else None)


def _warnings(old: Result, new: Result) -> list[str]:
    found = []
    for name, result in (("the older", old), ("the newer", new)):
        if told := disturbed(result.machine):
            found.append(f"{name} run: {told}")
        if not any(len(run.fps_slices) > 1 for run in result.runs):
            found.append(f"{name} run has no slices that would tell how noisy it was: more --seconds make some")
    for name in ("cpu", "cores", "memory_gb", "system", "python"):
        before, now = old.machine.get(name), new.machine.get(name)
        if before is not None and now is not None and before != now:
            found.append(f"another machine: {name} was {before}, is {now}")
    if old.bundle != new.bundle:
        found.append(f"another bundle: {old.bundle}, then {new.bundle}; their shares do not compare")
    elif old.model_digest and new.model_digest and old.model_digest != new.model_digest:
        found.append(f"another {new.bundle}: its files changed; their shares do not compare")
    return found
