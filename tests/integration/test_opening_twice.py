"""An Idempotency-Key through kill -9 of server and Redis: one session, told alike, over REST and gRPC."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import httpx
import pytest
import redis

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from tests.integration.server_process import ServerProcess, make_clip
from tests.integration.tiny_bundle import write_tiny_bundle


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    with ServerProcess(tmp_path / "data", str(write_tiny_bundle(tmp_path / "tiny")), threads=1) as server:
        yield server


def open_with(server: ServerProcess, key: str, frame: bytes, mask: bytes) -> httpx.Response:
    return server.client.post("/v1/sessions", files={"frame": frame, "mask": mask}, headers={"Idempotency-Key": key})


def stored_sessions(server: ServerProcess) -> set[str]:
    with redis.Redis(unix_socket_path=str(server.data_dir / "redis.sock")) as store:
        return {key.decode().split("{")[1].split("}")[0] for key in store.scan_iter("s2spp:{*}:snapshot")}


def test_a_key_outlives_the_server(server: ServerProcess) -> None:
    frames, mask = make_clip(2)
    first = open_with(server, "one", frames[0], mask)
    server.kill()
    server.start()
    again = open_with(server, "one", frames[0], mask)
    assert (first.status_code, "idempotent-replayed" in first.headers) == (201, False)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.content == first.content and again.headers["location"] == first.headers["location"]

    other = open_with(server, "one", frames[1], mask)
    assert (other.status_code, other.json()["reason"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    with grpc.insecure_channel(server.grpc) as channel:
        request = pb.CreateSessionRequest(
            frame=pb.Image(data=frames[0]), mask=pb.Image(data=mask), idempotency_key="one"
        )
        created = segmentation_pb2_grpc.SegmentationStub(channel).CreateSession(request)
    assert created.replayed and created.session.session_id == first.json()["session"]
    assert server.client.post(f"{first.headers['location']}/frames/1", content=frames[1]).status_code == 200
    assert stored_sessions(server) == {first.json()["session"]}


def test_a_kill_while_it_opens_leaves_one_session(server: ServerProcess) -> None:
    frames, mask = make_clip(2)
    seed = random.randrange(10**6)
    pauses = random.Random(seed)
    sessions = set()
    for number in range(4):
        key = f"key {number}"

        def send(key: str = key) -> None:
            with suppress(httpx.HTTPError):  # the server dies under it
                open_with(server, key, frames[0], mask)

        sending = threading.Thread(target=send)
        sending.start()
        time.sleep(pauses.uniform(0, 0.03))
        server.kill()
        sending.join()
        server.start()
        answer = open_with(server, key, frames[0], mask)
        assert answer.status_code == 201, answer.text
        sessions.add(answer.json()["session"])
        assert server.client.post(f"{answer.headers['location']}/frames/1", content=frames[1]).status_code == 200
        assert stored_sessions(server) == sessions, f"killed with seed {seed}"
