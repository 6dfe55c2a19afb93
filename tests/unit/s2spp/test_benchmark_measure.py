"""One slice: no longer than asked where frames take long."""

from __future__ import annotations

import asyncio

import pytest

from s2spp.benchmark.material import Material
from s2spp.benchmark.measure import measure_lanes

MATERIAL = Material.rendered(3, (64, 96))


class _SlowModel:
    """All sessions' frames one after the other; a session's lane is this too."""

    def __init__(self, frame_s: float) -> None:
        self._turn, self._frame_s = asyncio.Lock(), frame_s
        self.under_way = self.most_under_way = self.frames = 0

    async def open(self, frame: bytes, mask: bytes) -> None: ...

    async def send(self, frame_index: int, frame: bytes) -> float:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        async with self._turn:
            await asyncio.sleep(self._frame_s)
        self.under_way -= 1
        self.frames += 1
        return 1e3 * self._frame_s

    async def close(self) -> None: ...


async def test_where_a_frame_takes_longer_than_a_slice_it_is_one_for_each_half() -> None:
    model = _SlowModel(0.02)
    seen = await measure_lanes(lambda: model, 4, 1, 8, MATERIAL, 0.02)
    assert model.frames == 8 and model.most_under_way == 4
    assert len(seen.total_ms) == seen.frames == 4 and seen.frames / seen.seconds == pytest.approx(50, rel=0.5)


async def test_where_frames_are_short_the_window_is_full() -> None:
    model = _SlowModel(0.0)
    seen = await measure_lanes(lambda: model, 2, 1, 8, MATERIAL, 0.1)
    assert model.most_under_way == 16 and len(seen.total_ms) + seen.frames == model.frames - 4  # which warmed it
