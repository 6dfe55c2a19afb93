"""A real `s2spp serve` process on free ports, to be killed at will, and pictures to send to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import cv2
import httpx
import numpy as np
import psutil
from numpy.typing import NDArray

PATIENCE_S = 60.0
Found = TypeVar("Found")


class ServerProcess:
    """`with ServerProcess(folder, bundle) as server`. `http` talks to it; `start` after `kill` is a restart."""

    def __init__(self, data_dir: Path, bundle: str | Path, *options: str, **environment: str) -> None:
        self.data_dir = data_dir
        self._command = [sys.executable, "-m", "s2spp.cli", "serve", "--data-dir", str(data_dir)]
        self._command += ["--bundle", str(bundle), "--threads", "1"]
        self._command += options or ("--http-port", "0", "--grpc-port", "0")
        self._environment = {key: value for key, value in os.environ.items() if key != "REDIS_URL"} | environment
        self._process: subprocess.Popen[str] | None = None
        self.http = httpx.Client()
        self.grpc = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "not started"
        return self._process

    def launch(self) -> None:
        """Starts it without waiting for anything."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def start(self) -> None:
        """Returns when it serves."""
        self.launch()
        where = eventually(self._addresses)
        self.http = httpx.Client(base_url=where["http"], timeout=30)
        self.grpc = where["grpc"]

    def outcome(self) -> tuple[int, str]:
        """Exit status and everything it said, once it has ended by itself."""
        said, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, said

    def terminate(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.outcome()

    def redis(self) -> psutil.Process:
        (redis,) = psutil.Process(self.process.pid).children()
        return redis

    def kill(self) -> None:
        """kill -9, the server and its Redis."""
        if self.process.poll() is None:
            server = psutil.Process(self.process.pid)
            for member in (*server.children(), server):
                member.kill()
        self.process.communicate(timeout=PATIENCE_S)
        self.http.close()

    def _addresses(self) -> dict[str, str] | None:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with status {self.process.returncode}: {self.outcome()[1]}")
        try:
            where: dict[str, str] = json.loads((self.data_dir / "server.json").read_text())
        except FileNotFoundError:
            return None
        return where if int(where["pid"]) == self.process.pid else None


def eventually(look: Callable[[], Found | None]) -> Found:
    """The first thing that `look` finds; bounded, and never a measure of time."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing came of {look.__name__} within {PATIENCE_S:g} s")


def make_clip(frames: int, seed: int = 0, height: int = 90, width: int = 140) -> tuple[list[bytes], bytes]:
    """Frames (JPEG) of soft noise that changes slowly, and a mask (PNG) of the objects 1 and 5 for the first."""
    random = np.random.default_rng(seed)

    def noise() -> NDArray[np.float32]:
        return cv2.resize(random.random((9, 14, 3), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)

    one, other = noise(), noise()
    pictures = []
    for index in range(frames):
        share = index / max(1, frames - 1)
        pixels = np.clip(255 * ((1 - share) * one + share * other), 0, 255).astype(np.uint8)
        pictures.append(cv2.imencode(".jpg", pixels)[1].tobytes())
    mask = np.zeros((height, width), np.uint8)
    mask[10 : height // 2, 20 : width // 2] = 1
    mask[height // 2 : height - 5, width // 2 : width - 10] = 5
    return pictures, cv2.imencode(".png", mask)[1].tobytes()
