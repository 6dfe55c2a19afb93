"""The server under attack: it comes back on the same ports whenever it dies."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.integration.server_process import ServerProcess


class PhoenixServer(ServerProcess):
    """While the block lasts, a server that was killed is started again, by a thread of its own. `arm` says what the
    next one, or the first, does wrong; those after it are whole. `without`: a promise that all of them break."""

    def __init__(self, data_dir: Path, bundle: str | None, without: str | None = None) -> None:
        super().__init__(data_dir, bundle)
        self._serve = self._command
        self._without = ["--without", without] if without else []
        self._armed: list[str] = []
        self._over = threading.Event()
        self.deaths = 0
        self._build()

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

    def arm(self, kill_at: str, count: int) -> None:
        """Before the block is entered."""
        self._armed = ["--kill-at", kill_at, "--count", str(count)]
        self._build()

    def strike(self) -> None:
        """kill -9, the server and its Redis; the guard brings them back."""
        with self._lock:
            process = self._process
            if process is not None and process.poll() is None:
                self._kill_all()

    def _build(self) -> None:
        # s2spp.cli's own arguments begin behind [python, -m, s2spp.cli].
        self._command = [
            sys.executable,
            "-m",
            "tests.chaos.server",
            *self._armed,
            *self._without,
            "--",
            *self._serve[3:],
        ]

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            assert self._process is not None
            if self._process.poll() is None:
                continue
            self.deaths += 1
            self._armed = []
            self._build()
            with self._lock:
                self.stop()
                self.start()
