"""How much one engine takes on."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.imaging import ImageLimits


@dataclass(frozen=True)
class EngineLimits:
    """`max_sessions`: in memory at a time. `window`: frames of a session that are under way, or whose answers
    were not acknowledged yet. `threads`: for decoding and encoding."""

    max_sessions: int = 64
    max_client_sessions: int = 0
    """Of `max_sessions`, what one client may have opened; 0: all of them."""
    max_objects: int = 32
    images: ImageLimits = field(default_factory=ImageLimits)
    idle_timeout_s: float = 3600.0
    window: int = 64
    threads: int = 4
    commit_every: int = 3
    """Frames between two commits where durability is relaxed, as long as the commits of all sessions stay below"""
    commit_bytes_per_s: float = 50e6
    """beyond which the frames between grow, up to half of `max_uncommitted`."""
    max_uncommitted: int = 64
    """Relaxed: with so many frames at stake the sender waits for a commit."""
    commit_idle_s: float = 2.0
    """Relaxed: a session that pauses this long is committed."""
    park_idle_s: float = 30.0
    """A committed session idle this long leaves memory; its next frame brings it back."""
    evict_idle_s: float = 1.0
    """A committed session idle this long may leave memory to make room; its next frame brings it back."""
    sweep_every_s: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.max_objects <= 255:
            raise ValueError(f"max_objects is 1 to 255, not {self.max_objects}: object ids are bytes")
        if min(self.max_sessions, self.window, self.threads, self.commit_every, self.max_uncommitted) < 1:
            raise ValueError(f"every limit is at least 1: {self}")
        if self.max_client_sessions < 0:
            raise ValueError(f"max_client_sessions is a number of sessions, or 0 for no limit: {self}")
