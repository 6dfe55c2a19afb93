"""The server under attack: it comes back on the same ports whenever it dies."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.integration.server_process import ServerProcess

# What `EmbeddedServer` calls is [python, -m, s2spp.cli, serve, ...].
_CLI = 3


class PhoenixServer(ServerProcess):
    """While the block lasts, a server that was killed is started again, by a thread of its own. `kill_at` and `count`:
    when the first one kills itself. `without`: a promise that all of them break."""

    def __init__(
        self,
        data_dir: Path,
        bundle: str | None = None,
        *,
        kill_at: str | None = None,
        count: int = 1,
        without: str | None = None,
    ) -> None:
        super().__init__(data_dir, bundle)
        self._serve = self._command[_CLI:]
        self._fate = ["--kill-at", kill_at, "--count", str(count)] if kill_at else []
        self._broken = ["--without", without] if without else []
        self._over = threading.Event()
        self._changing = threading.Lock()
        self.deaths = 0

    def start(self) -> None:
        self._command = [sys.executable, "-m", "tests.chaos.server", *self._fate, *self._broken, "--", *self._serve]
        super().start()

    def __enter__(self) -> Self:
        self.start()
        self._guard = threading.Thread(target=self._watch, daemon=True)
        self._guard.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._guard.join()
        self.stop()

    def strike(self) -> None:
        """kill -9, the server and everything it started, at whatever it is doing; the guard brings it back."""
        while not self._over.is_set():
            with self._changing:
                assert self._process is not None
                if self._process.poll() is None:
                    server = psutil.Process(self.pid)
                    for process in (*server.children(recursive=True), server):
                        process.kill()
                    self._process.wait()
                    return
            time.sleep(0.01)  # it is down already: the next one

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            assert self._process is not None
            if self._process.poll() is None:
                continue
            with self._changing:
                self.deaths += 1
                self._fate = []
                self.stop()
                self.start()
