"""Senseless requests by the thousand at a real server, over REST, WebSocket and gRPC, with a session beside them.

    python -m tests.chaos.fuzz --count 10000            # prints the seed; --seed N does the same again

None may be answered as a defect of the server's or end it, its memory must not grow, and the masks of the session
beside must be those of a quiet server. Request number n depends on the seed and n alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random as randoms
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import grpc
import httpx
import numpy as np
import psutil

from tests.chaos.grpc_requests import GrpcFuzzer
from tests.chaos.rest_requests import RestFuzzer
from tests.chaos.server_faults import Faults
from tests.integration.server_process import ServerProcess, make_clip
from tests.integration.tiny_bundle import write_tiny_bundle

_AT_ONCE = 4
_WARM_UP = 0.25
MAY_GROW_BYTES = 40 << 20
"""What caches and a fragmented heap may take after the first quarter; a leak of 6 kB a request is more."""


@dataclass
class Report:
    seed: int
    requests: int
    beside: int
    """Frames of the session beside."""
    grown_bytes: int
    answers: Counter[str]
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{count} x {answer}" for answer, count in self.answers.most_common(6))
        return (
            f"{self.requests} senseless requests (seed {self.seed}): {len(self.faults)} faults; memory "
            f"{self.grown_bytes / 2**20:+.0f} MiB; {self.beside} frames of a session beside; {told}"
        )


async def fuzz(http: str, address: str, pid: int, count: int, seed: int) -> Report:
    """`http`: "http://host:port", `address`: gRPC's "host:port", `pid`: the server's process."""
    faults = Faults()
    process = psutil.Process(pid)
    pictures, mask = _pictures()
    async with (
        AsyncExitStack() as stack,
        httpx.AsyncClient(base_url=http, timeout=60) as client,
        grpc.aio.insecure_channel(address) as channel,
    ):
        beside = _Beside(client)
        await beside.open()
        rest = RestFuzzer(client, pictures, mask, faults)
        blocking = stack.enter_context(grpc.insecure_channel(address))
        rpc = GrpcFuzzer(channel, blocking, pictures, mask, faults)
        ways: list[Callable[[randoms.Random], Awaitable[None]]] = [*rest.ways, *rpc.ways]
        numbers = iter(range(count))
        warm_bytes = 0

        async def work() -> None:
            nonlocal warm_bytes
            for number in numbers:
                random = randoms.Random(f"{seed} {number}")
                way = random.choice(ways)
                with faults.of(f"request {number} of seed {seed} ({way.__name__})"):
                    await way(random)
                if number == int(_WARM_UP * count):
                    warm_bytes = _resident(process)

        stepping = asyncio.create_task(beside.step_for_ever())
        await asyncio.gather(*(work() for _ in range(min(_AT_ONCE, count))))
        stepping.cancel()
        await asyncio.wait({stepping})
        grown = _resident(process) - warm_bytes
        report = Report(seed, count, len(beside.masks), grown, faults.answers, faults.found)
        if not stepping.cancelled():
            report.faults.append(f"the session beside ended: {stepping.exception()!r}")
        elif await beside.quiet_masks() != beside.masks:
            report.faults.append("the masks of the session beside are not those of a quiet server")
    if not _resident(process):
        report.faults.append("the server's process is gone")
    if grown > MAY_GROW_BYTES:
        report.faults.append(f"the server's memory grew by {grown / 2**20:.0f} MiB")
    return report


class _Beside:
    """A session that behaves, stepped all along."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._frames, self._mask = make_clip(16, seed=4)
        self.masks: list[bytes] = []

    async def open(self) -> str:
        answer = await self._client.post("/v1/sessions", files={"frame": self._frames[0], "mask": self._mask})
        answer.raise_for_status()
        self._path = answer.headers["location"]
        return str(self._path)

    async def step_for_ever(self) -> None:
        while True:
            self.masks.append(await self._step(len(self.masks) + 1))
            await asyncio.sleep(0.02)

    async def quiet_masks(self) -> list[bytes]:
        await self.open()
        return [await self._step(index) for index in range(1, len(self.masks) + 1)]

    async def _step(self, index: int) -> bytes:
        frame = self._frames[index % len(self._frames)]
        answer = await self._client.post(f"{self._path}/frames/{index}", content=frame)
        answer.raise_for_status()
        return answer.content


def _resident(process: psutil.Process) -> int:
    """Bytes; 0 for a process that is no more."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _pictures() -> tuple[list[bytes], bytes]:
    """Good frames of one size, of every kind that is read, and a good mask."""
    (frame, *_), mask = make_clip(1, seed=2, height=48, width=80)
    pixels = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    kinds: list[tuple[str, Any, list[int]]] = [
        (".jpg", pixels, []),
        (".jpg", grey, []),
        (".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".png", pixels, []),
        (".png", grey.astype(np.uint16) * 257, []),
        (".webp", pixels, []),
    ]
    return [cv2.imencode(kind, image, flags)[1].tobytes() for kind, image, flags in kinds], mask


def fuzz_own_server(folder: Path, count: int, seed: int, bundle: str | None = None) -> Report:
    """On a server of our own in `folder`. `bundle`: a model bundle; None: one that costs nothing."""
    bundle = bundle or str(write_tiny_bundle(folder / "tiny"))
    # With one heap for all threads, what is resident is what is used: no gaps that each thread keeps to itself.
    with (
        patch.dict(os.environ, MALLOC_ARENA_MAX="1"),
        ServerProcess(folder / "data", bundle, threads=1) as server,
    ):
        return asyncio.run(fuzz(server.http, server.grpc, server.pid, count, seed))


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz a server of our own; exit status 1 for any fault.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--bundle", help="a model bundle; default: one that costs nothing")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = fuzz_own_server(Path(folder), arguments.count, arguments.seed, arguments.bundle)
    print("FAIL" if report.faults else "ok  ", report)
    for fault in report.faults[:20]:
        print("     ", fault)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
