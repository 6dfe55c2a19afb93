"""The embedded server on a disk that fills up: it says so, waits, and goes on by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.client import Client
from service.core.errors import Unavailable
from tests.integration.server_process import ServerProcess, eventually, make_clip
from tests.integration.tiny_bundle import write_tiny_bundle

_FULL = "the disk of the session store is full"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "small"
    disk.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no `mount` on this machine")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def server(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    server = ServerProcess(small_disk / "data", str(write_tiny_bundle(tmp_path / "tiny")), threads=1)
    server.log = tmp_path / "server.log"
    with server:
        yield server


def test_a_full_disk_is_told_and_once_there_is_space_all_goes_on(server: ServerProcess, small_disk: Path) -> None:
    frames, mask = make_clip(8)
    pictures = {"frame": ("f.jpg", frames[0]), "mask": ("m.png", mask)}

    def opened() -> str:
        session: str = server.client.post("/v1/sessions", files=pictures).json()["session"]
        return session

    def answer(session: str, index: int) -> bytes | None:
        """Once it is stored; nothing, where it cannot be."""
        said = server.client.post(f"/v1/sessions/{session}/frames/{index}", content=frames[index])
        assert said.status_code in (200, 503), said.text
        return said.content if said.status_code == 200 else None

    undisturbed, session = opened(), opened()
    expected = [answer(undisturbed, index) for index in range(1, 8)]
    masks = [answer(session, index) for index in (1, 2, 3)]
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    assert answer(session, 4) is None

    for method, path in (("GET", "/readyz"), ("POST", "/v1/sessions")):
        told = server.client.request(method, path, files=pictures if method == "POST" else None)
        assert (told.status_code, told.json()["reason"]) == (503, "UNAVAILABLE")
        assert told.json()["detail"].startswith(_FULL) and str(small_disk) not in told.text
    with Client(server.grpc) as client, pytest.raises(Unavailable, match=_FULL):
        client.segment(session, 4, frames[4])
    with grpc.insecure_channel(server.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        asked = health_pb2.HealthCheckRequest(service="s2spp.v1.Segmentation")
        eventually(lambda: health.Check(asked).status == health_pb2.HealthCheckResponse.NOT_SERVING or None)

    ballast.unlink()
    masks.append(eventually(lambda: answer(session, 4)))
    assert server.client.get("/readyz").status_code == 200
    eventually(lambda: "is back: there is space again" in server.log.read_text() or None)
    server.kill()
    server.start()
    masks += [answer(session, index) for index in (5, 6, 7)]
    assert masks == expected
    log = server.log.read_text()
    assert log.count(f"no space left in {server.data_dir}") == log.count("is back") == 1
    assert "has died" not in log and "Traceback" not in log
