"""The SDK's stream through a server that dies and comes back: every frame answered once, in order, as ever."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service.client import Client, Draw, Remove
from service.client.feed import TrackItem
from tests.integration.server_process import ServerProcess, eventually, make_clip
from tests.integration.tiny_bundle import write_tiny_bundle
from tests.integration.ways import RestWay, WebSocketWay

FRAMES = 40


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    bundle = write_tiny_bundle(tmp_path / "tiny")
    with ServerProcess(tmp_path / "data", str(bundle), threads=1) as server:
        yield server


def items(frames: list[bytes], corner: np.ndarray) -> Iterator[TrackItem]:
    """An object is drawn after frame 9, drawn anew after 20, and another one removed there."""
    for index, frame in enumerate(frames):
        yield frame
        if index in (9, 20):
            yield Draw(np.roll(corner, index, axis=1))
        if index == 20:
            yield Remove(1)


def in_step(source: Iterator[TrackItem], taken: threading.Semaphore) -> Iterator[TrackItem]:
    """A live source: no frame before the mask of the one before it. Little is stored when the server dies."""
    for number, item in enumerate(source):
        if number and not isinstance(item, Draw | Remove):
            assert taken.acquire(timeout=60)
        yield item


def follow(server: ServerProcess, kill_at: set[int], *, live: bool = False) -> list[tuple[int, tuple[int, ...], bytes]]:
    frames, mask = make_clip(FRAMES)
    shape = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_UNCHANGED).shape[:2]
    corner = np.zeros(shape, np.uint8)
    corner[2:14, 2:20] = 9
    found = []
    taken = threading.Semaphore(0)
    source = items(frames, corner)
    with Client(server.grpc) as client:
        for result in client.track(in_step(source, taken) if live else source, mask):
            ids = tuple(report.object_id for report in result.objects)
            found.append((result.frame_index, ids, result.labels.tobytes()))
            if result.frame_index in kill_at:
                # With the frames after it under way.
                server.kill()
                server.start()
            taken.release()
    return found


def test_nothing_is_lost_and_nothing_comes_twice(server: ServerProcess) -> None:
    seed = random.randrange(10**6)
    chosen = set(random.Random(seed).sample(range(1, FRAMES - 1), 3))
    undisturbed = follow(server, set())
    assert [index for index, *_ in undisturbed] == list(range(FRAMES))
    assert [ids for _, ids, _ in undisturbed] == [(1, 5)] * 10 + [(1, 5, 9)] * 11 + [(5, 9)] * (FRAMES - 21)
    # Around the changes of objects, and anywhere.
    for kill_at in ({9, 20}, chosen):
        for live in (False, True):
            assert follow(server, kill_at, live=live) == undisturbed, f"killed after {kill_at}, {live=}, seed {seed}"


def test_a_server_that_stops_tells_a_web_socket_where_to_resume(server: ServerProcess) -> None:
    frames, mask = make_clip(6)
    way = WebSocketWay(server.http, server.grpc)
    session = way.open(frames[0], mask).session
    expected = [way.frame(session, index, frames[index]).mask for index in range(1, 6)]
    way.close()
    session = RestWay(server.http, server.grpc).open(frames[0], mask).session
    with connect(f"{server.http.replace('http', 'ws')}/v1/sessions/{session}/stream") as socket:
        assert json.loads(socket.recv())["session"]["next_frame"] == 1
        for frame in frames[1:4]:
            socket.send(frame)
        masks = [(json.loads(socket.recv())["frame_index"], socket.recv()) for _ in range(3)]
        threading.Thread(target=server.stop).start()
        farewell = json.loads(socket.recv(timeout=30))
        assert (farewell["reason"], farewell["session"], farewell["next_frame"]) == ("UNAVAILABLE", session, "4")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=30)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
    assert masks == list(enumerate(expected[:3], 1))
    eventually(lambda: server._process is None or None)
    server.start()
    again = WebSocketWay(server.http, server.grpc)
    assert [again.frame(session, index, frames[index]).mask for index in (4, 5)] == expected[3:]
    again.close()
