"""The Markdown page of one result, with its plot beside it: what docs/BENCHMARKS.md is."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from s2spp.benchmark.live import FULL, PACE
from s2spp.benchmark.machine import disturbed
from s2spp.benchmark.plot import plot
from s2spp.benchmark.result import SETTLED, Result
from s2spp.benchmark.rows import (
    ENOUGH,
    LIVE_COLUMNS,
    PARTS_COLUMNS,
    PATH_COLUMNS,
    START_COLUMNS,
    STORE_COLUMNS,
    live_rows,
    parts_rows,
    path_rows,
    start_rows,
    store_rows,
)

_COLUMNS = f"""\
- **path**: `raw`, the model alone, its frames decoded and resized beforehand and its output left as it is; `engine`,
  in the same process, its snapshots kept in memory, so neither packing nor Redis is in it; `grpc`, `ws`, `rest`, a
  server on the same machine with its embedded Redis. A REST answer is stored before it leaves; over `grpc` and `ws`
  they are stored every few frames.
- **sessions**, **objects**: sessions at a time, and objects in each.
- **frames/s**: of all sessions together, with the usual number of frames under way in each (8; over REST 1), or as many
  as are answered in the time of this part where a frame takes long.
- **of raw**: that, as a share of the bare model's frames/s, which took turns with it. Machines differ and swing; this
  share compares. (Above 1: the machine was quicker in its turns.)
- **ms p50**, **ms p95**: median and 95th percentile, one frame under way in each session, from handing a frame (JPEG,
  854 x 480) to the client to having the whole mask (indexed PNG): sending, decoding and encoding are in it, but for
  `raw`. p95 is blank where fewer than {ENOUGH} were timed.
- **overhead ms p50**: median over those frames of that time less the frame's own inside onnxruntime. With several
  sessions it holds the wait for the others' frames."""
_PARTS = """\
Milliseconds, means: **ms**, from handing a frame to the client to having its mask. **decode**: the JPEG, and resizing
it for the model. **model**: inside onnxruntime. **mask**: the model's output merged and resized to the frame, and
packed as a PNG. **engine**: all else in the engine, waiting and threads. **outside**: client, network and server.
**frames**: how many, timed apart from those of the table above. (Of REST it cannot be told: a frame waits for the
store, too.)"""
_STORE = """\
- **opening commit**: a new session, constant states too. **commit**: what changes, every {every} frames, with the
  answers that are not acknowledged yet. **resume**: a session that is not in memory, until it could take a frame.
- **ms**: packing, sealing and Redis, for a commit; the engine's whole `resume`, for a resume.
- **kB** (1,000 bytes): received by Redis for a commit, sent by it for a resume, as `INFO stats` counts.
- **times**: how many of them. p95 is blank where fewer than {enough} were timed."""


def write_page(path: Path, result: Result) -> None:
    """`path` NAME.md; the plot is NAME.svg in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    svg = path.with_suffix(".svg")
    svg.write_text(plot(result), encoding="utf-8")
    path.write_text(page(result, path, svg.name), encoding="utf-8")


def page(result: Result, path: Path, svg: str) -> str:
    """`path`: where it will be, as the command that makes it names it. `svg`: its picture, from there."""
    command = f"{result.command or 's2spp bench'} --report {path.as_posix()}"
    blocks = [
        "# Benchmarks",
        f"This page is what one command wrote on {_date(result)}:",
        f"```sh\n{command}\n```",
        _machine(result),
        f"Where no other command is named, every figure here is of that one run of `{command}`.",
        f"![Frames a second against sessions, for each number of objects{_pictured(result)}]({svg})",
        "## Ways to the model",
        _table(PATH_COLUMNS, path_rows(result)),
        _COLUMNS,
        *_parts(result),
        *_live(result),
        *_store(result),
        *_start(result),
        *_memory(result),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _date(result: Result) -> str:
    return str(result.machine.get("time", "a day unknown")).partition("T")[0]


def _machine(result: Result) -> str:
    machine, pair = result.machine, result.precisions
    memory = f", {machine['memory_gb']:g} GB of memory" if "memory_gb" in machine else ""
    system = str(machine.get("system", platform.system())).partition("-")[0]
    said = [
        f"Machine: {machine['cpu']}, {machine['cores']} cores{memory}; {system}, Python {machine.get('python', '?')}; "
        f"{machine.get('int8_conv_gops', 0):,.0f} GOP/s at an 8-bit 3x3 convolution. Clients and server share it.",
        f"Bundle: `{result.bundle}`.",
    ]
    if isinstance(pair, str):
        said.append(f"Float and int8 in turns: not measured: {pair}.")
    elif pair is not None:
        said.append(
            f"Float and int8 in turns, the bare model: `{pair.float_bundle}` {pair.float_ms:.1f} ms, "
            f"`{pair.int8_bundle}` {pair.int8_ms:.1f} ms, ratio {pair.ratio:.2f}."
        )
    if told := disturbed(machine):
        said.append(told)
    return " ".join(said)


def _parts(result: Result) -> Iterable[str]:
    if not result.parts:
        return []
    return [
        "## Where a frame's time goes",
        "One session of one object, one frame under way.",
        _table(PARTS_COLUMNS, parts_rows(result.parts)),
        _PARTS,
    ]


def _live(result: Result) -> Iterable[str]:
    if not result.live:
        return []
    return [
        "## Live sessions",
        f"Over gRPC, each sends {PACE:g} frames a second, however long its masks take. More and more of them, until "
        f"the machine is full: fewer than {FULL:.0%} of their frames are answered in time, and the others pile up.",
        _table(LIVE_COLUMNS, live_rows(result.live)),
        "**sessions**: at a time. **frames/s**: answered before another frame of the session was due after the last. "
        "**ms p50**, **ms p95**: from when a frame was due until its mask was there. **p95 of one**: as a multiple of "
        "one session's. **frames**: how many. The last row is of a machine that is full.",
    ]


def _store(result: Result) -> Iterable[str]:
    store = result.store
    if store is None:
        return []
    return [
        "## The store",
        "One session at 854 x 480 on the embedded Redis as it is shipped: each write is flushed to disk (here "
        f"{store.filesystem}) before it is acknowledged. No frame is under way meanwhile.",
        _table(STORE_COLUMNS, store_rows(store)),
        _STORE.format(every=store.commit_every, enough=ENOUGH),
    ]


def _start(result: Result) -> Iterable[str]:
    if not result.start:
        return []
    return [
        "## Starts",
        "Processes of their own, their files in the system's cache. `s2spp serve` starts its Redis, loads the model "
        "and warms it up (wanted: at most 2 s).",
        _table(START_COLUMNS, start_rows(result.start)),
    ]


def _pictured(result: Result) -> str:
    return ", and memory over one session" if result.memory.is_a_line else ""


def _memory(result: Result) -> Iterable[str]:
    memory = result.memory
    if not memory.frames:
        return []
    growth = memory.growth_mb
    told = (
        "" if growth is None else f" From frame {SETTLED} to the end it grew by {growth:.1f} MB (wanted: below 1 MB)."
    )
    rows = [(f"{frame:,}", f"{rss:.1f}") for frame, rss in zip(memory.frames, memory.rss_mb, strict=True)]
    return [
        "## Memory",
        f"Resident memory (MB, 10^6 bytes) of a server that has one gRPC session of one object, and had none before."
        f"{told}",
        _table(("after frame", "MB"), rows),
    ]


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Numbers to the right, the first column to the left unless it is one of numbers."""
    body = [[str(cell) for cell in row] for row in rows]
    left = [not any(row[0][:1].isdigit() for row in body), *[False] * (len(names) - 1)]
    lines = ["| " + " | ".join(names) + " |", "|" + "|".join("---" if each else "--:" for each in left) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])
