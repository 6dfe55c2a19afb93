"""A server of our own for as long as a block lasts: what `s2spp demo`, `s2spp bench` and the tests talk to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_START_S = 60.0
_STOP_S = 20.0


class EmbeddedServer:
    """`with EmbeddedServer(folder) as server: server.http, server.grpc`. A process of its own on free ports, that ends
    when this one does, even by kill -9.

    http: "http://127.0.0.1:PORT"; grpc: "127.0.0.1:PORT". Its log is FOLDER/server.log. `environment`: more settings.
    """

    def __init__(
        self,
        data_dir: Path,
        bundle: str | None = None,
        threads: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = {**os.environ, **(environment or {})}
        self.data_dir = data_dir
        self.log = data_dir / "server.log"
        self._command = [
            sys.executable, "-m", "s2spp.cli", "serve", "--http-port", "0", "--grpc-port", "0",
            "--data-dir", str(data_dir), "--threads", str(threads), "--stop-with-stdin",
            *(["--bundle", bundle] if bundle else []),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.http = ""
        self.grpc = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when the server answers. Raises OSError with the log's end when it does not come up."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            # The pipe is never written to. Its end here closes with this process, however that goes.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
            )
        try:
            if self._comes_up(self._process):
                return
        except BaseException:  # Ctrl-C too: in a session of its own, the server would not hear of it
            self.stop()
            raise
        self.stop()
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        raise OSError(f"the server did not start; the end of {self.log}:\n{tail}")

    def _comes_up(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(FileNotFoundError):
                where = json.loads((self.data_dir / "server.json").read_text())
                if where["pid"] == process.pid:  # else of one that was killed
                    self.http, self.grpc = where["http"], where["grpc"]
                    return True
            time.sleep(0.02)
        return False

    def stop(self) -> int | None:
        """SIGTERM: it commits and ends. Killed when it does not. Returns its exit status, None without a start."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        process.stdin.close()
        return status
