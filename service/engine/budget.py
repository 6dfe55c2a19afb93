"""How many bytes a second the periodic commits of one engine may send to the store."""

from __future__ import annotations

from service.core.ports import Clock

_BURST_S = 1.0


class CommitBudget:
    """Bytes that come back at a steady rate, up to a second's worth.

    Every commit is spent from it, and may overdraw it; those that can wait ask `allows` first. So sessions with much
    state, or many of them, are stored every K frames with a K that grows as it must.
    """

    def __init__(self, bytes_per_s: float, clock: Clock) -> None:
        self._rate = bytes_per_s
        self._clock = clock
        self._left, self._at = bytes_per_s * _BURST_S, clock()

    @property
    def allows(self) -> bool:
        self._refill()
        return self._left > 0

    def spend(self, count: int) -> None:
        """At most a second's debt, or this one commit: what was stored in need is not paid for in minutes."""
        self._refill()
        self._left = max(self._left - count, -max(self._rate * _BURST_S, count))

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._rate * _BURST_S, self._left + (now - self._at) * self._rate)
        self._at = now
