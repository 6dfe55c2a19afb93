"""A Redis of our own, for serving with one command: one folder, one server that owns it, one redis-server.

Disk stays under 3 x live state + 128 MB. Redis appends every write to its log and keeps the old log until a
new one is complete. So the log is rewritten at 1.5 x live state + 48 MB, and writes are slowed meanwhile:
each goes into both logs, and while they keep coming Redis 6.2 prolongs a rewriting by a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

from redis.exceptions import RedisError

from service.core.cancelling import cancelled
from service.store.redis_process import (
    EmbeddedRedisError,
    RedisProcess,
    connect_admin,
    drop_half_logs,
    find_redis_server,
    socket_path,
    try_lock,
)

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 10.0
# With less on the disk a Redis is of no use: it ends at the first write that does not fit.
_ROOM_BYTES, _ROOM_SHARE = 16_000_000, 1 / 8
_SLACK_BYTES = 48 << 20
_SLICE_S = 0.03


class DataFolderInUse(EmbeddedRedisError):
    """Another server owns the data folder."""


class EmbeddedRedis:
    """A redis-server on `data_dir`, ours from `start` to `close`; also an async context manager.

    While it runs, a Redis that dies is started again (the store answers Unavailable meanwhile), once there is room
    for it, and its log on disk is kept under 3 x live state + 128 MB. A Redis left behind by a killed server is ended
    first.
    """

    def __init__(self, data_dir: Path, *, start_timeout_s: float = 60.0) -> None:
        self._folder = data_dir.resolve()
        self._start_timeout_s = start_timeout_s
        self._lock: IO[str] | None = None
        self._process: RedisProcess | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._full = False

    @property
    def url(self) -> str:
        """For redis.asyncio.Redis.from_url, once started."""
        return f"unix://{quote(str(socket_path(self._folder)))}"

    def trouble(self) -> str | None:
        """Why there is no Redis now, where that is known, in words for callers."""
        return "the disk of the session store is full" if self._full else None

    async def start(self) -> None:
        """Returns once Redis answers. Raises DataFolderInUse, or EmbeddedRedisError with the remedies."""
        binary = find_redis_server()
        self._lock = lock_folder(self._folder)
        try:
            self._process = await RedisProcess.start(binary, self._folder, self._start_timeout_s)
        except BaseException:
            await self.close()
            raise
        self._watcher = asyncio.create_task(self._watch(binary), name="embedded-redis")

    async def close(self) -> None:
        await cancelled(self._watcher)
        self._watcher = None
        if self._process is not None:
            await self._process.stop()
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _watch(self, binary: Path) -> None:
        """Never gives up, for a full disk may be emptied tomorrow; its pauses grow while attempts fail, or Redis does
        not live long."""
        pause, started = _LOOK_EVERY_S, time.monotonic()
        while True:
            await asyncio.sleep(pause)
            try:
                if self._process is not None and self._process.alive:
                    await _bound_log(self._folder)
                    if time.monotonic() - started > _STEADY_S:
                        pause = _LOOK_EVERY_S
                elif not self._lacks_room():
                    await self._start_again(binary)
                    pause, started = min(2 * pause, _LONGEST_PAUSE_S), time.monotonic()
            except (EmbeddedRedisError, RedisError, OSError) as error:
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                _log.error("the embedded Redis in %s: %s; next look in %.1f s", self._folder, error, pause)

    def _lacks_room(self) -> bool:
        """Whether Redis would soon die again, of a full disk; that it begins is logged."""
        drop_half_logs(self._folder)
        disk = shutil.disk_usage(self._folder)
        wanted = min(_ROOM_BYTES, _ROOM_SHARE * disk.total)
        if disk.free >= wanted:
            return False
        if not self._full:
            self._full = True
            _log.error(
                "no space left in %s (%.1f MB): the embedded Redis waits, and is started once %.1f MB are free",
                self._folder,
                disk.free / 1e6,
                wanted / 1e6,
            )
        return True

    async def _start_again(self, binary: Path) -> None:
        waited = self._full
        if not waited:
            _log.error("the embedded Redis in %s has died: starting it again; redis.log there says more", self._folder)
        self._process = await RedisProcess.start(binary, self._folder, self._start_timeout_s)
        self._full = False
        _log.warning("the embedded Redis in %s is back%s", self._folder, ": there is space again" if waited else "")


async def _bound_log(folder: Path) -> None:
    """Have the log rewritten when it is large for what lives in it; returns when that is done.
    Redis's own rule compares the log with its last size, and so misses that sessions have gone."""
    if _log_bytes(folder) <= _SLACK_BYTES:
        return
    async with connect_admin(folder) as redis:
        live = (await redis.info("memory"))["used_memory_dataset"]
        if _log_bytes(folder) <= 1.5 * live + _SLACK_BYTES:
            return
        await redis.bgrewriteaof()
        while True:
            await redis.client_pause(1000, all=False)  # writes only; ends by itself should we be killed now
            await asyncio.sleep(_SLICE_S)
            about = await redis.info("persistence")
            rewriting = about["aof_rewrite_in_progress"] or about["aof_rewrite_scheduled"]
            if rewriting and _log_bytes(folder) > 2.5 * live + 1.5 * _SLACK_BYTES:
                continue
            await redis.client_unpause()
            if not rewriting:
                break
            await asyncio.sleep(_SLICE_S)
    if about["aof_last_bgrewrite_status"] != "ok":
        raise EmbeddedRedisError("its log grows and could not be rewritten: see redis.log and the disk")


def _log_bytes(folder: Path) -> int:
    """The log, in one file (Redis 6.2) or several (7 and later), and the one that is to replace it."""
    total = 0
    for pattern in ("appendonly*", "appendonlydir/*", "temp-rewriteaof-*"):
        for file in folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # just replaced
                total += file.stat().st_size
    return total


def lock_folder(folder: Path) -> IO[str]:
    """The server's own lock, until closed: opened close-on-exec (as Python does), so no child of it keeps the lock.
    Raises DataFolderInUse, or EmbeddedRedisError where nothing can be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise EmbeddedRedisError(f"cannot write to data folder {folder} ({error}); choose another") from error
    if not try_lock(lock):
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise DataFolderInUse(
            f"the data folder {folder} is in use by the server with pid {holder}: "
            "stop that one first, or give this one another data folder (--data-dir, or S2SPP_DATA_DIR)"
        )
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
