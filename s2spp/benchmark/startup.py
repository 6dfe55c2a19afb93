"""How long it takes until a server answers, and what of that is importing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from rich.progress import Progress

from s2spp.benchmark.result import StartRow
from s2spp.embedded import EmbeddedServer

_TIMES = 5
_IMPORTS = {
    "python alone": "pass",
    "import s2spp, the client": "from s2spp import Client",
    "imports of s2spp serve": "import service.bootstrap, service.transport.grpc, service.transport.rest, "
    "service.store.embedded, service.runtime",
}


def measure_startup(bundle: str | None, threads: int, progress: Progress) -> list[StartRow]:
    """Processes of their own, one after the other, the kinds in turns. Files are in the system's cache."""

    def serve() -> float:
        with tempfile.TemporaryDirectory(prefix="s2spp-bench-") as folder:
            server = EmbeddedServer(Path(folder), bundle, threads)
            began = time.perf_counter()
            with server:
                return time.perf_counter() - began

    def run(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    kinds: dict[str, Callable[[], float]] = {what: partial(run, code) for what, code in _IMPORTS.items()}
    kinds["s2spp serve, until it answers"] = serve
    seen: dict[str, list[float]] = {what: [] for what in kinds}
    task = progress.add_task("start", total=_TIMES * len(kinds))
    for turn in range(-1, _TIMES):  # the first one, which fills the cache, does not count
        for what, measure in kinds.items():
            seconds = measure()
            if turn >= 0:
                seen[what].append(seconds)
                progress.advance(task)
    return [StartRow(what, len(times), median(times)) for what, times in seen.items()]
