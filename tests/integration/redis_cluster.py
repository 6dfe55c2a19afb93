"""A real Redis Cluster of three nodes, each a third of the slots."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from service.store.redis_process import find_redis_server
from tests.integration.cluster_processes import free_port

_SLOTS = 16384
_START_S = 30.0


@contextmanager
def redis_cluster(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Its URL, and what kills it."""
    ports = [_port() for _ in range(3)]
    nodes: list[redis.Redis] = []
    processes: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        for process in processes:
            process.kill()
            process.wait()

    with ExitStack() as stack:
        stack.callback(kill)
        for number, port in enumerate(ports):
            place = folder / str(port)
            place.mkdir(parents=True)
            options = ["--port", str(port), "--dir", str(place), "--cluster-enabled", "yes", "--appendonly", "yes"]
            log = stack.enter_context((place / "log").open("wb"))
            process = subprocess.Popen([find_redis_server(), *options, "--save", ""], stdout=log, stderr=log)
            processes.append(process)
            nodes.append(redis.Redis(port=port))
            _until(lambda node=nodes[-1]: node.ping())
            bounds = [_SLOTS * number // 3, _SLOTS * (number + 1) // 3]
            nodes[-1].execute_command("CLUSTER", "ADDSLOTS", *range(*bounds))
        for port in ports[1:]:
            nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        for node in nodes:
            _until(lambda node=node: b"cluster_state:ok" in node.execute_command("CLUSTER", "INFO"))
            _until(lambda node=node: b"cluster_known_nodes:3" in node.execute_command("CLUSTER", "INFO"))
        yield f"redis-cluster://127.0.0.1:{ports[0]}", kill


def _port() -> int:
    """Its nodes talk to each other on the port 10000 above."""
    while (port := free_port()) > 55_000:
        pass
    return port


def _until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            if look():
                return
        except redis.exceptions.RedisError:
            pass
        time.sleep(0.05)
    raise AssertionError("the Redis Cluster did not form")
