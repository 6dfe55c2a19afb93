"""An embedded server to be killed at will, and pictures to send to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import cv2
import httpx
import numpy as np
import psutil
from numpy.typing import NDArray

from s2spp.embedded import EmbeddedServer

PATIENCE_S = 60.0
Found = TypeVar("Found")


class ServerProcess(EmbeddedServer):
    """`client` talks to it; `start` after `kill` or `stop` is a restart, on the same ports."""

    def start(self) -> None:
        for option, address in (("--http-port", self.http), ("--grpc-port", self.grpc)):
            if address:
                self._command[self._command.index(option) + 1] = address.rpartition(":")[2]
        super().start()
        self.client = httpx.Client(base_url=self.http, timeout=30)

    def redis(self) -> psutil.Process:
        (redis,) = psutil.Process(self.pid).children()
        return redis

    def kill(self) -> None:
        """kill -9, the server and everything it started."""
        server = psutil.Process(self.pid)
        for process in (*server.children(recursive=True), server):
            process.kill()
        self.stop()


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
