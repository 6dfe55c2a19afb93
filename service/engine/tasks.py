"""Work that must outlive its caller: a frame, a save, a restore."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from service.core.errors import Unavailable

_Result = TypeVar("_Result")


class Tasks:
    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    def own(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def refuse_if_closed(self) -> None:
        if self._closed:
            raise Unavailable("the server is shutting down; try again in a moment")

    async def close(self) -> None:
        """Returns when all that runs has ended; `refuse_if_closed` keeps more from coming."""
        self._closed = True
        while self._running:
            await asyncio.wait(self._running)
