"""Live sessions: at their pace, until it is too much."""

from __future__ import annotations

import asyncio

from s2spp.benchmark.live import FULL, PACE, measure_live
from s2spp.benchmark.material import Material

MATERIAL = Material.rendered(3, (64, 96))


class _Model:
    """All sessions' frames one after the other."""

    def __init__(self, frame_s: float) -> None:
        self._turn, self._frame_s = asyncio.Lock(), frame_s
        self.indices: list[int] = []

    async def open(self, frame: bytes, mask: bytes) -> None: ...

    async def send(self, frame_index: int, frame: bytes) -> float:
        async with self._turn:
            await asyncio.sleep(self._frame_s)
        self.indices.append(frame_index)
        return 1e3 * self._frame_s

    async def close(self) -> None: ...


async def test_sessions_are_added_until_their_frames_pile_up() -> None:
    model = _Model(0.04)
    rows = await measure_live(lambda: model, MATERIAL, 1.0)
    assert rows[-1].fps < FULL * PACE * rows[-1].sessions and rows[-1].sessions <= 4, "three take more than there is"
    assert rows[-1].ms_p95 > 2 * 40 and all(row.ms_p50 >= 39 for row in rows)
    for row in rows:
        assert row.count == 10 * row.sessions, "all are answered in the end"
        assert row is rows[-1] or row.fps >= FULL * PACE * row.sessions
