"""Waiting in tests: bounded, and never a measure of time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE_S = 20.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def in_thread(work: Callable[[], Result]) -> Result:
    """Blocking code beside the event loop that serves it."""
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.to_thread(work)
