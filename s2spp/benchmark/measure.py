"""Drives lanes and takes times. Latency at one frame under way; rate with a window of frames under way."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from s2spp.benchmark.lanes import Lane
from s2spp.geometry import frame_to_model, mask_to_model, model_size
from service.core.ports import Runtime


@dataclass(frozen=True)
class Run:
    """One row of the table. `ms_*` and `overhead_ms_p50` at one frame under way per session: from sending a frame to
    having its mask, and that less the frame's time inside the model. `fps`: all sessions together, at `window`."""

    path: str
    bundle: str
    sessions: int
    objects: int
    window: int
    fps: float
    ms_p50: float
    ms_p95: float
    overhead_ms_p50: float

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Material:
    """Frames RGB and as JPEG, played forth and back. `size`: their height and width."""

    frames: Sequence[NDArray[np.uint8]]
    jpegs: Sequence[bytes]
    size: tuple[int, int]

    def turn(self, index: int) -> int:
        """Which picture frame `index` is, forth and back without a jump."""
        last = len(self.jpegs) - 1
        place = index % (2 * last)
        return place if place <= last else 2 * last - place

    def mask(self, objects: int) -> NDArray[np.uint8]:
        return grid_of_objects(*self.size, objects)


def grid_of_objects(height: int, width: int, objects: int) -> NDArray[np.uint8]:
    """Rectangles with the ids 1, 2, ...: large ones in two rows for up to ten, as many rows as it takes for more."""
    rows = 2 if objects <= 10 else math.ceil(math.sqrt(objects / 2))
    columns = max(5, math.ceil(objects / rows))
    tall, wide = height / rows, width / columns
    labels = np.zeros((height, width), np.uint8)
    for index in range(objects):
        row, column = divmod(index, columns)
        top, left = int((0.24 + row) * tall), int((0.2 + column) * wide)
        labels[top : top + int(tall / 2), left : left + int(wide * 0.625)] = index + 1
    return labels


@dataclass(frozen=True)
class Cell:
    """One cell of the table to measure, within `seconds`."""

    path: str
    bundle: str
    sessions: int
    objects: int
    window: int
    seconds: float


async def measure(cell: Cell, make: Callable[[], Lane], material: Material, mask_png: bytes) -> Run:
    """Two phases of half the time each: one frame under way per session, then `window` of them."""
    lanes = [make() for _ in range(cell.sessions)]
    await asyncio.gather(*(lane.open(material.jpegs[0], mask_png) for lane in lanes))
    total_ms: list[float] = []
    compute_ms: list[float] = []

    async def paced(lane: Lane, until: float) -> int:
        index = 0
        while index < 3 or time.perf_counter() < until:
            index += 1
            started = time.perf_counter()
            inside = await lane.send(index, material.jpegs[material.turn(index)])
            # The first answers warm caches and connections.
            if index > 2:
                total_ms.append(1e3 * (time.perf_counter() - started))
                compute_ms.append(inside)
        return index

    until = time.perf_counter() + cell.seconds / 2
    reached = await asyncio.gather(*(paced(lane, until) for lane in lanes))

    async def windowed(lane: Lane, index: int, until: float) -> int:
        first, pending = index, set()
        while time.perf_counter() < until:
            index += 1
            pending.add(asyncio.create_task(lane.send(index, material.jpegs[material.turn(index)])))
            if len(pending) >= cell.window:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        await asyncio.gather(*pending)
        return index - first

    started = time.perf_counter()
    counts = await asyncio.gather(
        *(windowed(lane, index, started + cell.seconds / 2) for lane, index in zip(lanes, reached, strict=True))
    )
    fps = sum(counts) / (time.perf_counter() - started)
    await asyncio.gather(*(lane.close() for lane in lanes))
    overhead = np.median(np.subtract(total_ms, compute_ms))
    p50, p95 = np.percentile(total_ms, [50, 95])
    return Run(
        cell.path, cell.bundle, cell.sessions, cell.objects, cell.window, fps, float(p50), float(p95), float(overhead)
    )


def measure_raw(runtime: Runtime, sessions: int, objects: int, material: Material, budget_s: float) -> Run:
    """The bare model: one batch of `sessions` frames and `objects` on each, frames resized beforehand."""
    info = runtime.info
    height, width = material.size
    size = model_size(height, width, info.pixel_budget, info.multiple)
    frames = [frame_to_model(frame, size) for frame in material.frames]
    mask = material.mask(objects)
    masks = np.stack([mask_to_model((mask == n).astype(np.uint8), size) for n in range(1, objects + 1)] * sessions)
    row = np.repeat(np.arange(sessions), objects)
    state = runtime.initialise(np.stack([frames[0]] * sessions), masks, row)
    times: list[float] = []
    until, index = time.perf_counter() + budget_s, 0
    while index < 4 or time.perf_counter() < until:
        index += 1
        batch = np.stack([frames[material.turn(index)]] * sessions)
        result = runtime.step(batch, row, state)
        state = result.state
        if index > 2:
            times.append(result.compute_ms)
    p50, p95 = np.percentile(times, [50, 95])
    fps = 1e3 * sessions * len(times) / sum(times)
    return Run("raw", info.name, sessions, objects, 1, fps, float(p50), float(p95), 0.0)
