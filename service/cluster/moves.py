"""Streams that went on at another worker, counted, and told in one line: when a worker dies all of its streams move."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from service.core.registry import ClusterObserver

_log = logging.getLogger(__name__)
_TOGETHER_S = 1.0


class Moves:
    """For one event loop."""

    def __init__(self, observer: ClusterObserver) -> None:
        self._observer = observer
        self._ways: Counter[tuple[str, str]] = Counter()
        self._sent_again = 0
        self._ended = 0

    def moved(self, left: str, worker: str, sent_again: int) -> None:
        """From one worker to another, which was sent so many frames and changes once more. One that has lost its
        connection and goes on where it was has not moved."""
        if left == worker:
            return
        self._observer.stream_moved(sent_again)
        self._tell_soon()
        self._ways[left, worker] += 1
        self._sent_again += sent_again

    def ended(self) -> None:
        """A stream for which no worker was found in time."""
        self._tell_soon()
        self._ended += 1

    def _tell_soon(self) -> None:
        if not self._ways and not self._ended:
            asyncio.get_running_loop().call_later(_TOGETHER_S, self._tell)

    def _tell(self) -> None:
        if self._ways:
            ways = ", ".join(f"{count} from worker {left} to {worker}" for (left, worker), count in self._ways.items())
            _log.info("streams moved: %s; frames and changes sent again: %d", ways, self._sent_again)
        if self._ended:
            _log.warning("streams ended: %d, no worker took their sessions in time", self._ended)
        self._ways.clear()
        self._sent_again = self._ended = 0
