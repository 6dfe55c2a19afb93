"""A server of our own for as long as a block lasts: what `s2spp demo`, `s2spp bench` and the tests talk to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_START_S = 60.0
_STOP_S = 20.0


class EmbeddedServer:
    """`with EmbeddedServer(folder) as server: server.http, server.grpc`. A process of its own on free ports.

    http: "http://127.0.0.1:PORT"; grpc: "127.0.0.1:PORT". Its log is FOLDER/server.log.
    """

    def __init__(self, data_dir: Path, bundle: str = "s2spp-light", threads: int = 0) -> None:
        self.data_dir = data_dir
        self.log = data_dir / "server.log"
        self._command = [
            sys.executable, "-m", "s2spp.cli", "serve", "--http-port", "0", "--grpc-port", "0",
            "--data-dir", str(data_dir), "--bundle", bundle, "--threads", str(threads),
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
        address = self.data_dir / "server.json"
        address.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ, start_new_session=True
            )
        try:
            if self._comes_up(self._process, address):
                return
        except BaseException:  # Ctrl-C too: in a session of its own, the server would not hear of it
            self.stop()
            raise
        self.stop()
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        raise OSError(f"the server did not start; the end of {self.log}:\n{tail}")

    def _comes_up(self, process: subprocess.Popen[bytes], address: Path) -> bool:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and process.poll() is None:
            if address.exists():
                where = json.loads(address.read_text())
                self.http, self.grpc = where["http"], where["grpc"]
                return True
            time.sleep(0.02)
        return False

    def stop(self) -> None:
        """SIGTERM: it commits and ends. Killed when it does not."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
