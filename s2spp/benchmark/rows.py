"""The result's rows as text, the same on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Sequence

from s2spp.benchmark.result import LiveRow, PartsRow, Result, StartRow, StoreSection

PATH_COLUMNS = ("path", "sessions", "objects", "frames/s", "of raw", "ms p50", "ms p95", "overhead ms p50")
STORE_COLUMNS = ("what", "objects", "ms p50", "ms p95", "kB p50", "kB p95", "times")
START_COLUMNS = ("what", "s p50", "times")
LIVE_COLUMNS = ("sessions", "frames/s", "ms p50", "ms p95", "p95 of one", "frames")
PARTS_COLUMNS = ("path", "ms", "decode", "model", "mask", "engine", "outside", "frames")
ENOUGH = 20
"""Of fewer, the 95th percentile is what the slowest one or two happened to take: it is left blank."""


def path_rows(result: Result) -> list[list[str]]:
    """The bare model has neither a share of itself nor an overhead."""
    rows = []
    for run in result.runs:
        bare = run.path == "raw"
        share = None if bare else result.share_of_raw(run)
        rows.append(
            [
                run.path,
                str(run.sessions),
                str(run.objects),
                f"{run.fps:.1f}",
                "" if share is None else f"{share:.2f}",
                f"{run.ms_p50:.1f}",
                _p95(run.ms_p95, run.count),
                "" if bare else f"{run.overhead_ms_p50:.2f}",
            ]
        )
    return rows


def store_rows(store: StoreSection) -> list[list[str]]:
    return [
        [
            row.what,
            str(row.objects),
            f"{row.ms_p50:.1f}",
            _p95(row.ms_p95, row.count),
            f"{row.bytes_p50 / 1e3:.1f}",
            _p95(row.bytes_p95 / 1e3, row.count),
            str(row.count),
        ]
        for row in store.rows
    ]


def start_rows(start: Sequence[StartRow]) -> list[list[str]]:
    return [[row.what, f"{row.s_p50:.2f}", str(row.count)] for row in start]


def live_rows(live: Sequence[LiveRow]) -> list[list[str]]:
    return [
        [
            str(row.sessions),
            f"{row.fps:.1f}",
            f"{row.ms_p50:.1f}",
            f"{row.ms_p95:.1f}",
            f"{row.ms_p95 / live[0].ms_p95:.2f}",
            str(row.count),
        ]
        for row in live
    ]


def parts_rows(parts: Sequence[PartsRow]) -> list[list[str]]:
    return [
        [
            row.path,
            *(f"{ms:.2f}" for ms in (row.ms, row.decode, row.model, row.mask, row.engine, row.outside)),
            str(row.count),
        ]
        for row in parts
    ]


def _p95(value: float, count: int | None) -> str:
    """`count`: None in older files."""
    return "" if count is not None and count < ENOUGH else f"{value:.1f}"
