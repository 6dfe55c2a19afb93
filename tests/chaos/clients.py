"""The client dies by SIGKILL, every second time the server with it, and another one goes on with the session: together
they have every mask."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

from service.client.requests import WINDOW
from tests.chaos.harness import PhoenixServer

_PATIENCE_S = 120.0


def killed(folder: Path, bundle: str | None, frames: int, kills: int, seed: int) -> tuple[list[str], int]:
    """The digest of every frame's mask, and how many were written twice. Raises AssertionError: a mask is missing, or
    written twice with other bytes, or more than a window of them twice in one go."""
    chance = random.Random(seed)
    ends = sorted(chance.sample(range(5, frames - 5), kills))
    masks = folder / "masks"
    masks.mkdir(parents=True)
    with PhoenixServer(folder / "server", bundle) as server:
        for number, end in enumerate([*ends, None]):
            out = masks / str(number)
            command = [
                sys.executable,
                "-m",
                "tests.chaos.client_process",
                server.grpc,
                str(masks),
                str(number),
                str(frames),
            ]
            client = subprocess.Popen(command)
            deadline = time.monotonic() + _PATIENCE_S
            while client.poll() is None and (
                end is None or not any((masks / str(n) / f"{end}.raw").exists() for n in range(number + 1))
            ):
                assert time.monotonic() < deadline, "the client makes no progress"
                time.sleep(0.002)
            if end is not None:
                client.kill()
                client.wait()
                if number % 2:
                    server.strike()
            assert end is not None or client.returncode == 0, f"the last client ended with {client.returncode}"
            assert out.is_dir()
    digests: dict[int, str] = {}
    twice = 0
    for number in range(kills + 1):
        again = 0
        for path in (masks / str(number)).glob("*.raw"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            index = int(path.stem)
            if index in digests:
                again += 1
                assert digests[index] == digest, f"frame {index} was written twice, and differs"
            digests[index] = digest
        assert again <= WINDOW, f"{again} frames were written twice by client {number}"
        twice += again
    missing = sorted(set(range(frames)) - set(digests))
    assert not missing, f"missing {missing[:8]}"
    return [digests[index] for index in range(frames)], twice
