"""Takes times of one cell of the table for one slice: latency at one frame under way, then rate at a window of them.

A slice opens its sessions and deletes them: nothing of it is stored or parked while another path has its turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from s2spp.benchmark.lanes import Lane
from s2spp.benchmark.material import Material
from s2spp.geometry import frame_to_model, mask_to_model, model_size
from service.core.ports import Runtime

# The first answers warm caches and connections.
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
        index = 0
        while index <= _WARMING or time.perf_counter() < until:
            index += 1
            started = time.perf_counter()
            inside = await lane.send(index, material.jpeg(index))
            if index > _WARMING:
                seen.total_ms.append(1e3 * (time.perf_counter() - started))
                seen.compute_ms.append(inside)
        return index

    until = time.perf_counter() + seconds / 2
    reached = await asyncio.gather(*(paced(lane, until) for lane in lanes))

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


def measure_raw(runtime: Runtime, sessions: int, objects: int, material: Material, seconds: float) -> Slice:
    """The bare model: one batch of `sessions` frames and `objects` on each, frames resized beforehand."""
    info = runtime.info
    height, width = material.size
    size = model_size(height, width, info.pixel_budget, info.multiple)
    frames = [frame_to_model(frame, size) for frame in material.frames]
    mask = material.mask(objects)
    masks = np.stack([mask_to_model((mask == n).astype(np.uint8), size) for n in range(1, objects + 1)])
    states = runtime.initialise([frames[0]] * sessions, [masks] * sessions)
    times: list[float] = []
    until, index = time.perf_counter() + seconds, 0
    while index < _WARMING + 2 or time.perf_counter() < until:
        index += 1
        results = runtime.step([frames[material.turn(index)]] * sessions, states)
        states = [result.state for result in results]
        if index > _WARMING:
            times.append(results[0].compute_ms)
    return Slice(times, times, sessions * len(times), sum(times) / 1e3)
