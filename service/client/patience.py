"""How long a stream that broke off is taken up again: the SDK's patience with a server, a gateway's with workers."""

from __future__ import annotations

import time

from service.core.errors import FrameGap, S2sppError

_MOST_FAULTS = 3
"""So often a server that is there may fail on the same frame."""


class Patience:
    """For `retry_for_s` from when the stream was lost, or first tried to begin; over and over, if it lasts that long in
    between."""

    def __init__(self, retry_for_s: float, first_pause_s: float, longest_pause_s: float, *, at_once: bool) -> None:
        """`at_once`: the first attempt needs no pause; those after it have."""
        self.retry_for_s = retry_for_s
        self._first_pause_s, self._longest_pause_s = first_pause_s, longest_pause_s
        self._at_once = at_once
        self._pause_s = 0.0
        self._faults = 0
        self.attempts = 0
        """Since there was progress, the next one included."""
        self._told = False
        self._began_at = time.monotonic()
        self._joined_at: float | None = None
        self.lost_since: float | None = None
        """None: there was progress since."""

    @property
    def joined(self) -> bool:
        """The attempt of now has the session."""
        return self._joined_at is not None

    def begin(self) -> None:
        """An attempt."""
        self._began_at, self._joined_at = time.monotonic(), None

    def join(self) -> None:
        self._joined_at = time.monotonic()

    def progress(self) -> None:
        """Something new was answered."""
        self.lost_since, self._faults = None, 0

    def worth_telling(self, after_s: float) -> bool:
        """Once for each loss, if it lasts longer than `after_s`."""
        if self._told or self.lost_since is None or time.monotonic() - self.lost_since < after_s:
            return False
        self._told = True
        return True

    def pause_s(self, problem: S2sppError) -> float | None:
        """Before the next attempt; None: there is no sense in one."""
        now = time.monotonic()
        lasted = self._joined_at is not None and now - self._joined_at > self.retry_for_s
        if self.lost_since is None or lasted:
            self.lost_since, self.attempts, self._told = now if self.joined else self._began_at, 1, False
            self._pause_s = 0.0 if self._at_once else self._first_pause_s
        else:
            self.attempts += 1
            self._pause_s = min(max(2 * self._pause_s, self._first_pause_s), self._longest_pause_s)
        # One that is away, full, or not the session's owner may come round for as long as there is time.
        self._faults += isinstance(problem, FrameGap) or type(problem) is S2sppError
        hopeless = now - self.lost_since >= self.retry_for_s or self._faults > _MOST_FAULTS
        return None if hopeless else self._pause_s
