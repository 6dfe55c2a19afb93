"""Where a frame's time goes: one session, one object, one frame under way."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from s2spp.benchmark.lanes import Lane
from s2spp.benchmark.material import Material
from s2spp.benchmark.result import PartsRow
from service.core.ports import FrameTimes
from service.engine.observer import SilentObserver

_WARMING = 10
_METRIC = "s2spp_frame_seconds"
Sums = dict[str, float]
"""Milliseconds of all frames so far, by stage, and under `count` how many they are."""


class StageSums(SilentObserver):
    """Of an engine in this process."""

    def __init__(self) -> None:
        self.sums: Sums = {"count": 0.0}

    def frame_answered(self, times: FrameTimes) -> None:
        self.sums["count"] += 1
        for stage, period in {**times.stages(), "total": times.total}.items():
            self.sums[stage] = self.sums.get(stage, 0.0) + 1e3 * period.seconds

    async def read(self) -> Sums:
        return dict(self.sums)


async def stage_sums(client: httpx.AsyncClient) -> Sums:
    """Of a server, from its metrics."""
    sums: Sums = {"count": 0.0}
    text = (await client.get("/metrics")).raise_for_status().text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            stage = sample.labels.get("stage", "")
            if sample.name == f"{_METRIC}_sum":
                sums[stage] = 1e3 * sample.value
            elif sample.name == f"{_METRIC}_count" and stage == "total":
                sums["count"] = sample.value
    return sums


async def measure_parts(
    path: str, lane: Lane, read: Callable[[], Awaitable[Sums]], material: Material, seconds: float
) -> PartsRow:
    """`read`: the engine's sums; nothing else uses it meanwhile."""
    await lane.open(material.jpegs[0], material.mask_png(1))
    for index in range(1, 1 + _WARMING):
        await lane.send(index, material.jpeg(index))
    before = await read()
    took: list[float] = []
    until = time.perf_counter() + seconds
    while not took or time.perf_counter() < until:
        index = 1 + _WARMING + len(took)
        began = time.perf_counter()
        await lane.send(index, material.jpeg(index))
        took.append(1e3 * (time.perf_counter() - began))
    after = await read()
    await lane.close()
    frames = after["count"] - before["count"]
    mean = {stage: (value - before.get(stage, 0.0)) / frames for stage, value in after.items()}
    model = mean["compute"] + mean.get("features", 0.0)
    known = mean["decode"] + model + mean["encode"]
    whole = float(np.mean(took))
    return PartsRow(
        path, int(frames), whole, mean["decode"], model, mean["encode"], mean["total"] - known, whole - mean["total"]
    )
