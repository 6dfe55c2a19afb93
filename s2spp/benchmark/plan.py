"""What a run of the benchmark is to measure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields

PATHS = ("raw", "engine", "grpc", "ws", "rest")


@dataclass(frozen=True)
class Plan:
    """`seconds`: for each row of the table. `memory_frames`: 0 leaves that part out."""

    bundle: str | None = None
    paths: Sequence[str] = PATHS
    sessions: Sequence[int] = (1, 4, 16)
    objects: Sequence[int] = (1, 3, 10)
    seconds: float = 9.0
    memory_frames: int = 10_000
    threads: int = 0
    precisions: bool = True
    store: bool = True
    start: bool = True
    live: bool = True

    def command(self) -> str:
        """The command that measures this, options that are as by default left out."""
        words = ["s2spp", "bench"]
        for each in fields(self):
            value, option = getattr(self, each.name), each.name.replace("_", "-")
            if value == each.default:
                continue
            if isinstance(value, bool):
                words.append(f"--no-{option}")
            elif isinstance(value, str | int | float):
                words += [f"--{option}", f"{value:g}" if isinstance(value, float) else str(value)]
            else:
                words += [f"--{option}", ",".join(map(str, value))]
        return shlex.join(words)
