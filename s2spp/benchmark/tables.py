"""The benchmark's tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from s2spp.benchmark.compare import Change, Comparison, Pair
from s2spp.benchmark.live import PACE
from s2spp.benchmark.machine import disturbed
from s2spp.benchmark.result import SETTLED, Result
from s2spp.benchmark.rows import (
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

_COLOURS = {"faster": "green", "slower": "red"}


def print_result(console: Console, result: Result) -> None:
    title = f"{result.bundle} on {result.machine['cpu']}, {result.machine['cores']} cores"
    _print(console, title, PATH_COLUMNS, path_rows(result))
    console.print(f"this machine: {result.machine.get('int8_conv_gops', 0):,.0f} GOP/s at an 8-bit 3x3 convolution")
    if told := disturbed(result.machine):
        console.print(told, style="yellow")
    pair = result.precisions
    if isinstance(pair, str):
        console.print(f"float and int8 in turns: not measured: {pair}", markup=False, soft_wrap=True)
    elif pair is not None:
        console.print(
            f"in turns, the bare model: {pair.float_bundle} {pair.float_ms:.1f} ms, {pair.int8_bundle} "
            f"{pair.int8_ms:.1f} ms ({1e3 / pair.int8_ms:.0f} frames/s), ratio {pair.ratio:.2f}"
        )
    if result.parts:
        _print(console, "where a frame's time goes, ms, one under way", PARTS_COLUMNS, parts_rows(result.parts))
    if result.live:
        title = f"live sessions over gRPC, {PACE:g} frames/s each, until the machine is full"
        _print(console, title, LIVE_COLUMNS, live_rows(result.live))
    if result.store is not None:
        title = f"the store: an embedded Redis, its log flushed to {result.store.filesystem} by each commit"
        _print(console, title, STORE_COLUMNS, store_rows(result.store))
    if result.start:
        _print(console, "starts", START_COLUMNS, start_rows(result.start))
    memory = result.memory
    for frames, rss in zip(memory.frames, memory.rss_mb, strict=True):
        console.print(f"memory after frame {frames}: {rss:.1f} MB")
    if memory.growth_mb is not None:
        console.print(f"memory grew by {memory.growth_mb:.1f} MB from frame {SETTLED} on (wanted: below 1 MB)")


def print_comparison(console: Console, old_name: str, comparison: Comparison) -> None:
    """`old_name`: how the older result is called."""
    pairs = comparison.pairs
    names = ("path", "sessions", "objects", "before", "now", "raw = 1: before", "now", "change")
    rate = [_compared(pair, pair.old.fps, pair.new.fps, pair.old.share, pair.new.share, pair.rate) for pair in pairs]
    late = [_compared(pair, pair.old.ms, pair.new.ms, pair.old.times, pair.new.times, pair.latency) for pair in pairs]
    _print(console, f"frames/s: {old_name}, and now", names, rate)
    _print(console, f"ms p50: {old_name}, and now", names, late)
    console.print(
        "Compare what stands under raw: parts of the same run's bare model. One is told as faster or slower if it "
        "changed by more than 5 %, and by more than it strayed among the slices of either run; unknown without slices.",
        soft_wrap=True,
    )
    for warning in comparison.warnings:
        console.print(warning, style="yellow", markup=False, soft_wrap=True)
    if comparison.missing:
        console.print(f"{comparison.missing} rows are in one of the two only, and are left out")


def _compared(
    pair: Pair, before: float, now: float, raw_before: float | None, raw_now: float | None, change: Change
) -> list[str]:
    ratios = ["", ""] if pair.path == "raw" else [_ratio(raw_before), _ratio(raw_now)]
    return [
        pair.path,
        str(pair.sessions),
        str(pair.objects),
        f"{before:.1f}",
        f"{now:.1f}",
        *ratios,
        "" if pair.path == "raw" else _told(change),
    ]


def _told(change: Change) -> str:
    verdict = change.verdict
    if verdict == "unknown":
        return verdict
    if change.gain is None or verdict not in _COLOURS:
        return ""
    return f"[{_COLOURS[verdict]}]{abs(change.gain):.0%} {verdict}[/]"


def _ratio(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"


def _print(console: Console, title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title)
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
