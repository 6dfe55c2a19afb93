"""Objects that come and go in a running session, through the real server, its Redis, and kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from service.client import Client
from service.core.types import MaskFormat
from tests.integration.server_process import ServerProcess, make_clip
from tests.integration.tiny_bundle import write_tiny_bundle


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    bundle = write_tiny_bundle(tmp_path / "tiny")
    with ServerProcess(tmp_path / "data", str(bundle), threads=1) as server:
        yield server


def follow(server: ServerProcess, kill_after: set[int]) -> list[tuple[tuple[int, ...], bytes]]:
    """Ids and mask of each frame: an object is added by gRPC after frame 2, corrected and another one removed by REST
    after frame 4; server and Redis are killed after the frames, and the changes behind them, of `kill_after`."""
    frames, mask = make_clip(8)
    labels = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_UNCHANGED)
    corner = np.zeros(labels.shape[:2], np.uint8)
    corner[2:14, 2:20] = 9
    png = cv2.imencode(".png", (corner > 0) * np.uint8(255))[1].tobytes()
    with Client(server.grpc) as client:
        session = client.create_session(frames[0], mask, mask_format=MaskFormat.RAW).info.session
    found = []
    for index, frame in enumerate(frames[1:], start=1):
        with Client(server.grpc) as client:
            answer = client.segment(session, index, frame)
            found.append((tuple(report.object_id for report in answer.objects), answer.labels.tobytes()))
            if index == 2:
                client.draw_objects(session, 2, frame, corner)
        if index == 4:
            objects, files = f"/v1/sessions/{session}/objects", {"frame": ("f", frame), "mask": ("m", png)}
            for answered in (
                server.client.put(f"{objects}/9/mask", files=files, params={"frame_index": 4}),
                server.client.delete(f"{objects}/1", params={"frame_index": 4}),
            ):
                assert answered.status_code == 200, answered.text
        if index in kill_after:
            server.kill()
            server.start()
            if index == 4:
                # The client never heard: it asks again.
                again = server.client.delete(f"{objects}/1", params={"frame_index": 4})
                assert again.json()["object_ids"] == [5, 9]
    return found


def test_objects_come_and_go_and_survive(server: ServerProcess) -> None:
    undisturbed = follow(server, set())
    assert [ids for ids, _ in undisturbed] == [(1, 5)] * 2 + [(1, 5, 9)] * 2 + [(5, 9)] * 3
    assert follow(server, {2, 4, 5}) == undisturbed
