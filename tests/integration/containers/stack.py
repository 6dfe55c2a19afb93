"""The services of docker-compose.yml as processes: their own commands, environments and health checks. Only names of
hosts, ports and folders are others, and the model is a tiny one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from s2spp.embedded import EmbeddedServer
from service.store.redis_process import find_redis_server
from tests.integration.cluster_processes import RedisServer, free_port
from tests.integration.containers.files import ROOT, Service, compose

CONF = ROOT / "docker" / "redis.conf"
_CONF_INSIDE = "/usr/local/etc/redis/redis.conf"


def _bare() -> dict[str, str]:
    """This process's environment, without what would tell a server something."""
    told = ("S2SPP_", "REDIS_", "OTEL_")
    return {**{key: value for key, value in os.environ.items() if not key.startswith(told)}, "PYTHONPATH": str(ROOT)}


class Container(EmbeddedServer):
    """A gateway or a worker. `stop` is `docker stop`."""

    def __init__(self, service: Service, folder: Path, redis_port: int, bundle: Path) -> None:
        self.service = service
        own = {
            key: value.replace("redis:6379", f"127.0.0.1:{redis_port}") for key, value in service.environment.items()
        }
        own |= {"S2SPP_HTTP_PORT": str(free_port()), "S2SPP_GRPC_PORT": str(free_port()), "S2SPP_DATA_DIR": str(folder)}
        if service.name == "worker":
            own |= {"S2SPP_BUNDLE": str(bundle), "S2SPP_THREADS": "1"}
        program, *arguments = service.command
        assert program == "s2spp"
        super().__init__(folder)
        self._environment = {**_bare(), **own, "PATH": os.environ["PATH"]}
        only = ["-m", "tests.integration.containers.only", ",".join(service.image.extras)]
        # The last option, so that it ends with the tests.
        self._command = [sys.executable, *only, *arguments, "--stop-with-stdin"]

    def healthy(self, environment: dict[str, str] | None = None) -> bool:
        """What Docker would find. `environment`: in place of some of its own."""
        command, seconds = self.service.image.healthcheck
        return passes([sys.executable, *command[1:]], seconds, {**self._environment, **(environment or {})})


def passes(command: list[str], seconds: float, environment: dict[str, str]) -> bool:
    try:
        return subprocess.run(command, env=environment, timeout=seconds, capture_output=True).returncode == 0
    except subprocess.TimeoutExpired:
        return False


class ComposeRedis(RedisServer):
    """The service `redis`: its command on docker/redis.conf. Kept to this machine, as the network of its containers
    keeps it there."""

    def start(self) -> None:
        program, conf = compose()["services"]["redis"]["entrypoint"]
        assert (program, conf) == ("redis-server", _CONF_INSIDE)
        ours = ["--port", str(self.port), "--bind", "127.0.0.1"]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_redis_server(), CONF, *ours], cwd=self._folder, stdout=log, stderr=log
            )
        self.wait()

    def healthy(self, port: int) -> bool:
        test = compose()["services"]["redis"]["healthcheck"]["test"]
        assert test[0] == "CMD-SHELL"
        beside = f"{find_redis_server().parent}:{os.environ['PATH']}"
        command = test[1].replace("redis-cli", f"redis-cli -p {port}")
        return passes(["sh", "-c", command], 10, {**os.environ, "PATH": beside})


@dataclass
class Stack:
    """`with Stack(folder, bundle) as stack: stack.up("worker")`. Redis runs from the start."""

    folder: Path
    bundle: Path
    running: dict[str, Container] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.redis = ComposeRedis(self.folder / "redis")

    def up(self, name: str) -> Container:
        container = Container(Service.read(name), self.folder / name, self.redis.port, self.bundle)
        self.running[name] = container
        container.start()
        return container

    def __enter__(self) -> Self:
        self.redis.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for container in reversed(self.running.values()):
            container.stop()
        self.redis.kill()
