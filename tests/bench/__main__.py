"""What a cluster costs, measured beside what it is compared with: in turns, in one run, on this machine.

python -m tests.bench                   all of it, about six minutes
python -m tests.bench --only idle       one line
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from s2spp.embedded import EmbeddedServer
from service.client import Client
from service.runtime import suitable
from tests.chaos.cluster import counted
from tests.chaos.material import Story, story
from tests.integration.cluster_processes import Cluster

_ROUNDS, _ROUND_S = 6, 8.0
_IDLE, _ACTIVE = 1000, 8


@dataclass
class Seen:
    """`latencies`: seconds from a frame's sending to its mask, of frames sent one by one."""

    frames: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.frames / self.seconds

    @property
    def p95_ms(self) -> float:
        return float(np.percentile(self.latencies, 95)) * 1e3


def follow(target: str, tale: Story, seen: Seen, begin: float, until: float, every_s: float | None) -> None:
    """One stream. `every_s` None: as fast as it goes, a window ahead; else a frame so often from `begin` on, each after
    the mask of the one before."""
    taken, sent_at = threading.Semaphore(1), 0.0

    def frames() -> Iterator[bytes]:
        nonlocal sent_at
        due = begin
        for index in range(10**6):
            if every_s is not None:
                taken.acquire()
                due = max(due + every_s, time.monotonic() - every_s)
                time.sleep(max(0.0, due - time.monotonic()))
            if time.monotonic() > until:
                return
            sent_at = time.perf_counter()
            yield tale.jpegs[index % len(tale.jpegs)]

    with Client(target) as client:
        for number, _ in enumerate(client.track(frames(), tale.labels)):
            if number:
                seen.latencies.append(time.perf_counter() - sent_at)
                seen.frames += 1
            taken.release()


def play(target: str, tale: Story, streams: int, seen: Seen, every_s: float | None = None) -> None:
    """So many streams at a time, for one round."""
    began = time.monotonic()
    with ThreadPoolExecutor(streams) as threads:
        each = [Seen() for _ in range(streams)]
        # Cameras are not in step with each other.
        starts = [began + (every_s or 0.0) * number / streams for number in range(streams)]
        until = began + _ROUND_S
        following = [
            threads.submit(follow, target, tale, own, start, until, every_s)
            for own, start in zip(each, starts, strict=True)
        ]
        for done in following:
            done.result()
    seen.seconds += time.monotonic() - began
    for own in each:
        seen.frames += own.frames
        seen.latencies += own.latencies


class Spent:
    """Processor time of a process, while this is entered. `cpu_s`: all of it so far."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.cpu_s = 0.0

    def __enter__(self) -> None:
        self.cpu_s -= self._now()

    def __exit__(self, *_: object) -> None:
        self.cpu_s += self._now()

    def _now(self) -> float:
        spent = self._process.cpu_times()
        return float(spent.user + spent.system)


def throughput(folder: Path, bundle: str, tale: Story) -> str:
    """Gateway and two workers, one thread each, beside the embedded server with two, and the gateway's share beside
    that of a relay which only passes bytes on."""
    together, alone, relayed = Seen(), Seen(), Seen()
    with (
        Cluster(folder / "cluster", bundle, 2, 1) as cluster,
        EmbeddedServer(folder / "alone", bundle) as server,
        relay_to(server.grpc) as (relay, pid),
    ):
        gateway, least = Spent(cluster.gateways[0].pid), Spent(pid)
        for _ in range(_ROUNDS):
            with gateway:
                play(cluster.grpc, tale, 4, together)
            play(server.grpc, tale, 4, alone)
            with least:
                play(relay, tale, 4, relayed)
    return (
        f"gateway and 2 workers {together.rate:.1f} frames/s, embedded {alone.rate:.1f}: "
        f"{together.rate / alone.rate:.2f} x (wanted: 0.9); the gateway takes "
        f"{gateway.cpu_s / together.frames * 1e3:.2f} ms of CPU a frame (wanted: 0.6), a bare relay "
        f"{least.cpu_s / relayed.frames * 1e3:.2f}"
    )


@contextmanager
def relay_to(target: str) -> Iterator[tuple[str, int]]:
    """Its address, and its process."""
    command = [sys.executable, "-m", "tests.bench.relay", target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{int(process.stdout.readline())}", process.pid
        finally:
            process.kill()


def commits(folder: Path, bundle: str, tale: Story) -> str:
    """A stream that is stored every six frames, beside one that is every 32nd, which is no part of a p95."""
    often, seldom, frames = Seen(), Seen(), 0
    rarely = {"S2SPP_COMMIT_EVERY": "32", "S2SPP_COMMIT_BYTES_PER_S": "1"}
    with (
        Cluster(folder / "often", bundle, 1, 1, threads=0) as first,
        Cluster(folder / "seldom", bundle, 1, 1, rarely, threads=0) as second,
    ):
        written = 0
        for _ in range(_ROUNDS):
            before, had = _written(first), often.frames
            play(first.grpc, tale, 1, often, every_s=0.0)
            written += _written(first) - before
            frames += often.frames - had
            play(second.grpc, tale, 1, seldom, every_s=0.0)
    return (
        f"{written / frames / 1e6:.3f} MB to Redis for each object and frame, opening included (wanted: 0.15); p95 "
        f"{often.p95_ms:.1f} ms with commits, {seldom.p95_ms:.1f} without: {often.p95_ms / seldom.p95_ms:.2f} x "
        "(wanted: 1.1)"
    )


def _written(cluster: Cluster) -> int:
    return int(cluster.redis.client().info("stats")["total_net_input_bytes"])  # type: ignore[index]


def idle(folder: Path, bundle: str, tale: Story) -> str:
    """A thousand sessions that nobody uses now, beside active ones."""
    crowded, empty = Seen(), Seen()
    with (
        Cluster(folder / "crowded", bundle, 1, 1, threads=0) as first,
        Cluster(folder / "empty", bundle, 1, 1, threads=0) as second,
    ):
        with Client(first.grpc, retry_for_s=60) as client:
            for _ in range(_IDLE):
                client.create_session(tale.jpegs[0], tale.labels)
        time.sleep(35)  # they are parked after 30 s
        in_memory = counted(first.workers[0], "s2spp_sessions_in_memory")
        for _ in range(_ROUNDS):
            play(first.grpc, tale, _ACTIVE, crowded, every_s=1.0)
            play(second.grpc, tale, _ACTIVE, empty, every_s=1.0)
        stored = first.redis.client().dbsize()
    return (
        f"{_IDLE} idle sessions ({stored} keys in Redis, notes of openings included), "
        f"{in_memory:.0f} sessions in the worker's memory; p95 of "
        f"{_ACTIVE} active ones {crowded.p95_ms:.1f} ms beside them, {empty.p95_ms:.1f} without: "
        f"{crowded.p95_ms / empty.p95_ms:.2f} x (wanted: 1.1)"
    )


LINES: dict[str, Callable[[Path, str, Story], str]] = {"throughput": throughput, "commits": commits, "idle": idle}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(LINES))
    parser.add_argument("--bundle", default=suitable("cpu")[0])
    chosen = parser.parse_args()
    tale = story(120)
    print(f"{chosen.bundle} on {tale.name}, {os.cpu_count()} cores", flush=True)
    with ExitStack() as stack:
        for name in chosen.only or LINES:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s2spp-bench-")))
            print(f"{name}: {LINES[name](folder, chosen.bundle, tale)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
