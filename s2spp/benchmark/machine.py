"""What the benchmark ran on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

_QUIET = 0.05


def describe_machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def filesystem_of(folder: Path) -> str:
    """Its kind, such as ext4, or tmpfs, where flushing to disk costs nothing. "unknown" where nobody tells."""
    whole = folder.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if whole.is_relative_to(part.mountpoint)]
    return max(reversed(mounts), key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"


class Others:
    """How much of the machine's CPU time other programs took since this was made, and the host of a virtual one: what
    they take, the paths lose unequally."""

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy_s(), sum(os.times()[:4])

    def share(self) -> float:
        """0 to 1. Own servers count as own once they have ended."""
        theirs = (_busy_s() - self._busy) - (sum(os.times()[:4]) - self._own)
        whole = (time.monotonic() - self._began) * (psutil.cpu_count() or 1)
        return min(1.0, max(0.0, theirs / whole))


def disturbed(machine: Mapping[str, Any]) -> str | None:
    """A sentence where others took so much that shares mislead too; None on a quiet machine."""
    share = float(machine.get("others_cpu") or 0.0)
    if share <= _QUIET:
        return None
    return f"Other programs took {share:.0%} of the CPU meanwhile: measure on a quiet machine."


def _busy_s() -> float:
    times = psutil.cpu_times()._asdict()
    # Guests are counted in `user` already.
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(float(seconds) for kind, seconds in times.items() if kind not in idle)
