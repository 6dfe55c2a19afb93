"""docker/redis.conf: a real Redis accepts it, and keeps what the file promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.integration.containers.files import compose
from tests.integration.containers.stack import CONF, ComposeRedis

_UNITS = {"g": 1 << 30, "gb": 1 << 30, "m": 1 << 20, "mb": 1 << 20}


def _bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", text).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ComposeRedis]:
    server = ComposeRedis(tmp_path)
    server.start()
    yield server
    server.kill()


def test_it_is_accepted_and_says_what_was_promised(server: ComposeRedis) -> None:
    told = server.client().config_get("*")
    promised = {
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    assert {name: told[name] for name in promised} == promised
    limit = _bytes(compose()["services"]["redis"]["mem_limit"])
    assert 0 < 1.25 * int(told["maxmemory"]) <= limit, "room to copy what changes while the log is rewritten"
    lines = CONF.read_text().splitlines()
    assert "bind * -::*" in lines and "protected-mode no" in lines and "port 6379" in lines, "containers reach it"


def test_it_survives_kill_minus_nine(server: ComposeRedis) -> None:
    client = server.client()
    for number in range(50):
        client.set(f"key{number}", number)
    server.kill()
    server.start()
    assert server.client().dbsize() == 50


def test_full_it_refuses_and_keeps_what_it_has(server: ComposeRedis) -> None:
    client = server.client()
    client.set("kept", b"x" * 100_000)
    client.config_set("maxmemory", client.info("memory")["used_memory"])
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        for number in range(100):
            client.set(f"more{number}", b"x" * 100_000)
    assert client.strlen("kept") == 100_000
