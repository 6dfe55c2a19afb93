"""How WebSockets hear that the server stops: uvicorn alone would close them without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Stopping:
    """The server stops: streams answer what they have read, say where to resume, and end."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self._streams: set[object] = set()
        self._none = asyncio.Event()
        self._none.set()

    @contextmanager
    def running(self) -> Iterator[None]:
        stream = object()
        self._streams.add(stream)
        self._none.clear()
        try:
            yield
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._none.set()

    async def stop(self, grace_s: float) -> None:
        """Returns when all streams have ended, or the time is over."""
        self.told.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._none.wait(), grace_s)
