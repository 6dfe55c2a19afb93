"""Ending tasks that would go on for ever."""

from __future__ import annotations

import asyncio
from typing import Any

_AGAIN_AFTER_S = 1.0


async def cancelled(*tasks: asyncio.Task[Any] | None) -> None:
    """Returns when they have ended, whatever with. Once is not enough: up to Python 3.11 `asyncio.wait_for`, by which
    redis-py sends, keeps a cancellation to itself where what it waits for ends at the same moment."""
    running = [task for task in tasks if task is not None]
    while pending := [task for task in running if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_AGAIN_AFTER_S)
    for task in running:
        if not task.cancelled():
            task.exception()  # heard
