"""Time that passes when the test says so."""

from __future__ import annotations


class FakeClock:
    """The Clock port."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
