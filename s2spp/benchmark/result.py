"""What `s2spp bench --json` writes, and what it reads again: of an older bench too, which had fewer parts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from service.core.fields import from_known

Cell = tuple[str, int, int]
"""Path, sessions, objects in each."""
SETTLED = 500
"""By this frame of a session, caches and buffers have their size."""


@dataclass(frozen=True)
class Run:
    """One row of the table. `ms_*` and `overhead_ms_p50` of `count` frames, at one under way per session: from sending
    a frame to having its mask, and that less the frame's time inside the model. `fps`: all sessions together, with
    `window` frames under way in each, fewer where they take long. `*_slices`: the same of each slice, in the order of
    the turns. Older files have neither these nor the count."""

    path: str
    bundle: str
    sessions: int
    objects: int
    window: int
    fps: float
    ms_p50: float
    ms_p95: float
    overhead_ms_p50: float
    fps_slices: Sequence[float] = ()
    ms_slices: Sequence[float] = ()
    count: int | None = None

    @property
    def cell(self) -> Cell:
        return self.path, self.sessions, self.objects


@dataclass(frozen=True)
class StoreRow:
    """One kind of traffic with Redis, `count` times, for a session of `objects` objects. Milliseconds; bytes as Redis
    counted them: received by it for what is saved, sent by it for what is loaded."""

    what: str
    objects: int
    count: int
    ms_p50: float
    ms_p95: float
    bytes_p50: float
    bytes_p95: float


@dataclass(frozen=True)
class StoreSection:
    """`filesystem`: of the folder with Redis' log, to which each commit is flushed. `commit_every`: frames."""

    filesystem: str
    commit_every: int
    rows: Sequence[StoreRow]


@dataclass(frozen=True)
class StartRow:
    """Seconds from starting a process until it answers, or ends, `count` times."""

    what: str
    count: int
    s_p50: float


@dataclass(frozen=True)
class LiveRow:
    """So many sessions that send frames at a camera's pace: `fps`, those of all sessions that were answered in
    time; `ms_*`, of `count` frames, from when it was due until its mask was there."""

    sessions: int
    count: int
    fps: float
    ms_p50: float
    ms_p95: float


@dataclass(frozen=True)
class PartsRow:
    """Where the time of a frame goes on one way, milliseconds, means of `count` frames: in the whole; decoding and
    resizing the picture, the model, making the mask; what else is inside the engine (waiting, threads), and outside
    (client, network, server)."""

    path: str
    count: int
    ms: float
    decode: float
    model: float
    mask: float
    engine: float
    outside: float


@dataclass(frozen=True)
class Memory:
    """Resident memory of a server (MB, 10^6 bytes) after so many frames of its one session."""

    frames: Sequence[int] = ()
    rss_mb: Sequence[float] = ()

    @property
    def is_a_line(self) -> bool:
        """Enough to be drawn."""
        return len(self.frames) > 1

    @property
    def growth_mb(self) -> float | None:
        """From frame 500 to the last; None where it was not so long."""
        if SETTLED not in self.frames[:-1]:
            return None
        return self.rss_mb[-1] - self.rss_mb[self.frames.index(SETTLED)]


@dataclass(frozen=True)
class Precisions:
    """Medians of the bare step, one frame with one object, float and int8 in turns."""

    float_bundle: str
    int8_bundle: str
    float_ms: float
    int8_ms: float

    @property
    def ratio(self) -> float:
        """Float's time in int8's."""
        return self.float_ms / self.int8_ms


@dataclass(frozen=True)
class Result:
    """`command`: what makes it again. `precisions`: or why they could not be measured, None where that was not asked
    for."""

    machine: Mapping[str, Any]
    runs: Sequence[Run]
    memory: Memory = field(default_factory=Memory)
    precisions: Precisions | str | None = None
    store: StoreSection | None = None
    model_digest: str = ""
    command: str = ""
    start: Sequence[StartRow] = ()
    parts: Sequence[PartsRow] = ()
    live: Sequence[LiveRow] = ()

    @property
    def bundle(self) -> str:
        return self.runs[0].bundle

    def run(self, cell: Cell) -> Run | None:
        return next((run for run in self.runs if run.cell == cell), None)

    def raw_of(self, run: Run) -> Run | None:
        """The bare model, measured in turns with `run`."""
        return self.run(("raw", run.sessions, run.objects))

    def share_of_raw(self, run: Run) -> float | None:
        """Its rate as a part of the bare model's."""
        raw = self.raw_of(run)
        return run.fps / raw.fps if raw else None

    def to_dict(self) -> dict[str, object]:
        """The `--json` form."""
        memory = asdict(self.memory) | {"growth_mb": self.memory.growth_mb}
        precisions: dict[str, object] | None = None
        if isinstance(self.precisions, Precisions):
            precisions = asdict(self.precisions) | {"ratio": self.precisions.ratio}
        elif self.precisions is not None:
            precisions = {"unavailable": self.precisions}
        return asdict(self) | {"memory": memory, "precisions": precisions}


def share_noise(own: Sequence[float], raw: Sequence[float]) -> float | None:
    """How far a slice's share of the raw model's strays from the middle one, at most, as a part of it. None where there
    are no two slices to tell it."""
    if len(own) < 2 or len(raw) != len(own):
        return None
    shares = [each / bare for each, bare in zip(own, raw, strict=True)]
    middle = median(shares)
    return max(abs(share / middle - 1) for share in shares)


def read_result(path: Path) -> Result:
    """Raises OSError, and ValueError where the file is no such result."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        runs = [from_known(Run, run) for run in found["runs"]]
        if not runs:
            raise ValueError("it has no runs")
        memory, store = found.get("memory") or {}, found.get("store")
        pair = found.get("precisions")
        return Result(
            dict(found["machine"]),
            runs,
            Memory([int(frame) for frame in memory.get("frames", [])], memory.get("rss_mb", [])),
            pair and (pair.get("unavailable") or from_known(Precisions, pair)),
            store and from_known(StoreSection, store | {"rows": [from_known(StoreRow, row) for row in store["rows"]]}),
            found.get("model_digest", ""),
            found.get("command", ""),
            [from_known(StartRow, row) for row in found.get("start", [])],
            [from_known(PartsRow, row) for row in found.get("parts", [])],
            [from_known(LiveRow, row) for row in found.get("live", [])],
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not what `s2spp bench --json` writes ({type(error).__name__}: {error}); make one with "
            "`s2spp bench --json OLD.json`"
        ) from error
