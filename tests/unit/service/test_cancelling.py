"""Tasks end, also those that a library keeps from hearing that they should."""

from __future__ import annotations

import asyncio

import pytest

from service.core import cancelling
from service.core.cancelling import cancelled


async def test_a_task_that_missed_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelling, "_AGAIN_AFTER_S", 0.01)
    missed = 0

    async def for_ever() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                missed += 1
                if missed == 3:
                    raise

    async def fails() -> None:
        raise ValueError("nobody waits for it")

    tasks = asyncio.create_task(for_ever()), asyncio.create_task(fails())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await cancelled(*tasks, None)
    assert missed == 3 and all(task.done() for task in tasks)
