"""Live sessions: each sends frames at its camera's pace, more and more of them, until the machine is full."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from s2spp.benchmark.lanes import Lane
from s2spp.benchmark.material import Material
from s2spp.benchmark.result import LiveRow

PACE = 10.0
"""Frames a second of each session."""
_COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
FULL = 0.95
"""Of the frames that are offered, answered by the time that another one would be due: below it, they pile up."""


async def measure_live(make: Callable[[], Lane], material: Material, seconds: float) -> list[LiveRow]:
    """One row for each number of sessions; the last one is of a full machine."""
    rows: list[LiveRow] = []
    for sessions in _COUNTS:
        rows.append(await _row(make, sessions, material, seconds))
        if rows[-1].fps < FULL * PACE * sessions:
            break
    return rows


async def _row(make: Callable[[], Lane], sessions: int, material: Material, seconds: float) -> LiveRow:
    lanes = [make() for _ in range(sessions)]
    await asyncio.gather(*(lane.open(material.jpegs[0], material.mask_png(1)) for lane in lanes))
    began = time.perf_counter() + 0.1
    answered: list[tuple[float, float]] = []

    async def sent(lane: Lane, index: int, at: float) -> None:
        await lane.send(index, material.jpeg(index))
        now = time.perf_counter()
        answered.append((now, 1e3 * (now - at)))

    async def camera(lane: Lane, first: float) -> None:
        frames = []
        for index in range(1, 1 + round(PACE * seconds)):
            at = first + (index - 1) / PACE
            await asyncio.sleep(at - time.perf_counter())
            frames.append(asyncio.create_task(sent(lane, index, at)))
        await asyncio.gather(*frames)

    # Cameras are not in step: between two frames of one come those of the others.
    await asyncio.gather(*(camera(lane, began + n / sessions / PACE) for n, lane in enumerate(lanes)))
    await asyncio.gather(*(lane.close() for lane in lanes))
    in_time = sum(at <= began + seconds + 1 / PACE for at, _ in answered)
    p50, p95 = np.percentile([ms for _, ms in answered], [50, 95])
    return LiveRow(sessions, len(answered), in_time / seconds, float(p50), float(p95))
