"""A Redis, workers and gateways as processes of their own, each to be killed, stopped and started at will."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from s2spp.embedded import EmbeddedServer
from service.store.redis_process import find_redis_server

_START_S = 20.0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class RedisServer:
    """On a port that it keeps, with every write on disk before it is answered."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def start(self) -> None:
        options = ["--port", str(self.port), "--dir", str(self._folder), "--save", ""]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_redis_server(), *options, "--appendonly", "yes", "--appendfsync", "always"],
                stdout=log,
                stderr=log,
            )
        self.wait()

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with suppress(redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                if self.client().ping():
                    return
            time.sleep(0.02)
        raise OSError(f"Redis did not start; see {self._folder}/redis.log")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Member(EmbeddedServer):
    """A worker or a gateway. `start` after `kill` or `stop` is another one, a gateway on the ports it had."""

    def __init__(
        self, role: str, folder: Path, url: str, bundle: Path | str, environment: dict[str, str], threads: int = 1
    ) -> None:
        """`threads`: of a worker's model."""
        super().__init__(folder, environment={**environment, "REDIS_URL": url})
        self.role = role
        ports = ["--http-port", "0", "--grpc-port", "0", "--data-dir", str(folder), "--stop-with-stdin"]
        model = ["--bundle", str(bundle), "--threads", str(threads)] if role == "worker" else []
        self._command = [sys.executable, "-m", "s2spp.cli", role, *ports, *model]

    def start(self) -> None:
        for option, address in (("--http-port", self.http), ("--grpc-port", self.grpc)):
            if address and self.role == "gateway":
                self._command[self._command.index(option) + 1] = address.rpartition(":")[2]
        super().start()

    def run_as(self, module: str) -> None:
        """From the next start on: another program that takes the same arguments."""
        self._command[2] = module

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.stop()


class Cluster:
    """`http` and `grpc` are the first gateway's."""

    def __init__(
        self,
        folder: Path,
        bundle: Path | str,
        workers: int = 2,
        gateways: int = 1,
        environment: dict[str, str] | None = None,
        threads: int = 1,
    ) -> None:
        self.redis = RedisServer(folder / "redis")

        def members(role: str, count: int) -> list[Member]:
            return [
                Member(role, folder / f"{role}{number}", self.redis.url, bundle, environment or {}, threads)
                for number in range(count)
            ]

        self.workers, self.gateways = members("worker", workers), members("gateway", gateways)

    @property
    def http(self) -> str:
        return self.gateways[0].http

    @property
    def grpc(self) -> str:
        return self.gateways[0].grpc

    def start(self) -> None:
        """The processes that do not run; the Redis, if it does not."""
        for member in [*self.workers, *self.gateways]:
            member.start()

    def kill(self) -> None:
        """All workers and gateways."""
        for member in [*self.workers, *self.gateways]:
            member.kill()

    def owner(self, session: str) -> Member:
        """The worker that has the session."""
        said = self.redis.client().get(f"s2spp:{{{session}}}:owner")
        assert isinstance(said, bytes), f"nobody has session {session}"
        name = said.split(b":")[1].decode()
        return next(worker for worker in self.workers if f"worker {name} serves" in worker.log.read_text())

    def __enter__(self) -> Self:
        self.redis.start()
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in [*self.gateways, *self.workers]:
            member.stop()
        self.redis.kill()
