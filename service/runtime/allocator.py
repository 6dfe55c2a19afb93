"""The C library's allocator, from Python."""

from __future__ import annotations

import ctypes
import sys

# glibc's; macOS and musl have none and return memory by their own rules.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def release_free_memory() -> None:
    """What this process has freed goes back to the system. Takes about a millisecond, and what is allocated next has
    to ask for fresh pages: not for every frame."""
    if _malloc_trim is not None:
        _malloc_trim(0)
