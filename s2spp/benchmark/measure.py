"""Takes times of one cell of the table for one slice: latency at one frame under way, then rate at a window of them.

A slice opens its sessions and deletes them: nothing of it is stored or parked while another path has its turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from s2spp.benchmark.lanes import Lane
from s2spp.benchmark.material import Material

_Seen = TypeVar("_Seen")
_WARMING = 2


@dataclass
class Slice:
    """What one slice saw. `total_ms`: from handing a frame to the client to having its mask, one frame under way for
    each session; `compute_ms`: what of it was inside the model. `frames` in `seconds`, at the window."""

    total_ms: list[float] = field(default_factory=list)
    compute_ms: list[float] = field(default_factory=list)
    frames: int = 0
    seconds: float = 0.0


async def measure_lanes(
    make: Callable[[], Lane], sessions: int, objects: int, window: int, material: Material, seconds: float
) -> Slice:
    """Half of `seconds` with one frame under way for each session, half with `window` of them."""
    seen, mask_png = Slice(), material.mask_png(objects)
    lanes = [make() for _ in range(sessions)]
    await asyncio.gather(*(lane.open(material.jpegs[0], mask_png) for lane in lanes))

    async def paced(lane: Lane, until: float) -> int:
        times: list[tuple[float, float]] = []
        while not times or time.perf_counter() < until:
            index = len(times) + 1
            started = time.perf_counter()
            inside = await lane.send(index, material.jpeg(index))
            times.append((1e3 * (time.perf_counter() - started), inside))
        for total, inside in _warm(times):
            seen.total_ms.append(total)
            seen.compute_ms.append(inside)
        return len(times)

    until = time.perf_counter() + seconds / 2
    reached = await asyncio.gather(*(paced(lane, until) for lane in lanes))
    # No more under way than the time is for: where frames take long, what is sent at first would be all that is seen,
    # and answered long after.
    window = min(window, max(1, int(1e3 * seconds / 2 / median(seen.total_ms))))

    async def windowed(lane: Lane, index: int, until: float) -> int:
        first, pending = index, set()
        while time.perf_counter() < until:
            index += 1
            pending.add(asyncio.create_task(lane.send(index, material.jpeg(index))))
            if len(pending) >= window:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        await asyncio.gather(*pending)
        return index - first

    started = time.perf_counter()
    counts = await asyncio.gather(
        *(windowed(lane, index, started + seconds / 2) for lane, index in zip(lanes, reached, strict=True))
    )
    seen.frames, seen.seconds = sum(counts), time.perf_counter() - started
    await asyncio.gather(*(lane.close() for lane in lanes))
    return seen


def _warm(seen: list[_Seen]) -> list[_Seen]:
    """Without the first ones, which warm caches and connections. Where there are no others, a frame takes so long that
    this is nothing beside it."""
    return seen[_WARMING:] or seen
