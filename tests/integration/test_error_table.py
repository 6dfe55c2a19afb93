"""Every row of the error table, through every way in, against a real server: its word, its status, and that the session
goes on afterwards, unless the row is its own end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import redis

from service.core import errors
from service.transport.grpc.errors import STATUS_CODES
from service.transport.http.problems import ERRORS, row_of
from tests.integration.server_process import ServerProcess, eventually, make_clip
from tests.integration.tiny_bundle import write_tiny_bundle
from tests.integration.ways import WAYS, GrpcWay, RestWay, Said, WebSocketWay

FRAMES, MASK = make_clip(9)
AnyWay = RestWay | WebSocketWay | GrpcWay


@dataclass
class Scene:
    """A server of its own, with little room, and one way into it."""

    folder: Path
    kind: type[AnyWay]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bundle = write_tiny_bundle(self.folder / "tiny")
        self.server = ServerProcess(self.folder / "data", str(self.bundle), threads=1)
        self._ways: list[AnyWay] = []

    def way(self) -> AnyWay:
        self._ways.append(self.kind(self.server.http, self.server.grpc))
        return self._ways[-1]

    def redis(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(next(self.folder.glob("data/**/*.sock"))))

    def close(self) -> None:
        for way in self._ways:
            way.close()
        self.server.stop()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Scene]]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    scenes: list[Scene] = []

    def stage(kind: type[AnyWay], **environment: str) -> Scene:
        for name, value in environment.items():
            monkeypatch.setenv(f"S2SPP_{name.upper()}", value)
        scenes.append(Scene(tmp_path / str(len(scenes)), kind))
        scenes[-1].server.start()
        return scenes[-1]

    yield stage
    for scene in scenes:
        scene.close()


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def kind(request: pytest.FixtureRequest) -> type[AnyWay]:
    chosen: type[AnyWay] = request.param
    return chosen


def expect(said: Said, error: type[errors.S2sppError], way: AnyWay) -> None:
    """The table's own status for that error: gRPC's name, HTTP's number."""
    assert said.reason == error.reason, said
    code = next(STATUS_CODES[each] for each in error.__mro__ if each in STATUS_CODES)
    assert said.status == (code.name if isinstance(way, GrpcWay) else row_of(error).status), said


def begun(way: AnyWay, frames: int = 2) -> str:
    session = way.open(FRAMES[0], MASK).session
    assert session
    for index in range(1, frames + 1):
        goes_on(way, session, index)
    return session


def goes_on(way: AnyWay, session: str, index: int) -> None:
    said = way.frame(session, index, FRAMES[index])
    assert (said.reason, said.frame_index) == ("", index), said


def png(height: int, width: int) -> bytes:
    return cv2.imencode(".png", np.full((height, width, 3), 90, np.uint8))[1].tobytes()


def test_frames_and_masks_that_cannot_be_used(stage: Callable[..., Scene], kind: type[AnyWay]) -> None:
    scene = stage(kind, max_pixels="20000", max_image_bytes="40000")
    way = scene.way()
    session = begun(way)
    index = 3
    for image, error in (
        (b"no picture", errors.UnsupportedMedia),
        (FRAMES[3][: len(FRAMES[3]) // 2], errors.InvalidImage),
        (png(20, 30), errors.InvalidImage),
        (png(200, 300), errors.InputTooLarge),
    ):
        expect(way.frame(session, index, image), error, way)
        index += 1
    for mask, error in (
        (cv2.imencode(".png", np.zeros((90, 140), np.uint8))[1].tobytes(), errors.InvalidMask),
        (cv2.imencode(".png", np.ones((10, 14), np.uint8))[1].tobytes(), errors.InvalidMask),
        (b"no picture", errors.UnsupportedMedia),
    ):
        expect(way.draw(session, index - 1, FRAMES[index - 1], mask), error, way)
    expect(way.remove(session, index - 1, 77), errors.InvalidOption, way)
    said = way.frame(session, index, FRAMES[3])
    assert not said.reason, said
    expect(way.open(b"no picture", MASK), errors.UnsupportedMedia, way)


def test_indices_out_of_place(stage: Callable[..., Scene], kind: type[AnyWay]) -> None:
    scene = stage(kind)
    way = scene.way()
    session = begun(way, 3)
    if isinstance(way, WebSocketWay):
        # It counts by itself: only where it begins can be wrong.
        expect(scene.way().resume(session, 0)[0], errors.FrameAcknowledged, way)
    else:
        expect(way.frame(session, 1, FRAMES[1]), errors.FrameAcknowledged, way)
        gap = way.frame(session, 9, FRAMES[1])
        expect(gap, errors.FrameGap, way)
        assert gap.details["expected"] == "4"
    expect(way.remove(session, 1, 1), errors.FrameAcknowledged, way)
    expect(way.remove(session, 8, 1), errors.FrameGap, way)
    expect(way.remove(session, 3, 1, ordinal=3), errors.FrameGap, way)
    goes_on(way, session, 4)


def test_sessions_that_are_not_there(stage: Callable[..., Scene], kind: type[AnyWay]) -> None:
    scene = stage(kind, idle_timeout_s="2")
    way = scene.way()
    expect(way.frame("A" * 32, 1, FRAMES[1]), errors.SessionUnknown, way)
    session = begun(way)
    other = scene.way()

    def expired() -> Said | None:
        # Looking is no use of a session; it is over when its time is.
        if scene.server.client.get(f"/v1/sessions/{session}").status_code == 200:
            return None
        return other.frame(session, 3, FRAMES[3])

    expect(eventually(expired), errors.SessionExpired, way)


def test_a_session_taken_by_a_newer_stream(stage: Callable[..., Scene], kind: type[AnyWay]) -> None:
    scene = stage(GrpcWay if kind is RestWay else kind)
    way, newer = scene.way(), scene.way()
    session = begun(way)
    newer.resume(session)
    if kind is RestWay:
        # A single post is no stream: it neither takes the session nor loses it.
        rest = RestWay(scene.server.http, scene.server.grpc)
        goes_on(rest, session, 3)
        rest.close()
        goes_on(newer, session, 4)
        return
    expect(way.frame(session, 3, FRAMES[3]), errors.OwnershipLost, way)
    goes_on(newer, session, 3)


def test_a_store_that_lost_writes(stage: Callable[..., Scene], kind: type[AnyWay]) -> None:
    scene = stage(kind)
    rest = RestWay(scene.server.http, scene.server.grpc)
    session = begun(rest, 2)
    store = scene.redis()
    kept = {key: store.dump(key) for key in store.scan_iter()}
    goes_on(rest, session, 3)
    # kill -9, and the store is as it was before frame 3.
    scene.server.kill()
    rest.close()
    scene.server.start()
    store = scene.redis()
    store.flushall()
    for key, value in kept.items():
        store.restore(key, 3_600_000, value)
    way = scene.way()
    if isinstance(way, RestWay):
        answer = scene.server.client.post(
            f"/v1/sessions/{session}/frames/4", content=FRAMES[4], params={"committed_frame": 3}
        )
        said = RestWay._said(answer)
    else:
        (said,) = way.resume(session, 3, committed_frame=3)
    expect(said, errors.SessionRolledBack, way)
    assert said.details["frame_index"] == "2"
    goes_on(scene.way(), session, 3)


def test_a_stored_session_that_is_damaged(stage: Callable[..., Scene], kind: type[AnyWay]) -> None:
    scene = stage(kind)
    rest = RestWay(scene.server.http, scene.server.grpc)
    session, whole = begun(rest), begun(rest)
    rest.close()
    scene.server.kill()
    scene.server.start()
    store = scene.redis()
    (key,) = [each for each in store.scan_iter() if session.encode() in each and store.type(each) == b"hash"]
    store.hset(key, "meta", b"nonsense")
    way = scene.way()
    expect(way.frame(session, 3, FRAMES[3]), errors.SnapshotDamaged, way)
    goes_on(way, whole, 3)


def test_a_session_of_another_model(stage: Callable[..., Scene], kind: type[AnyWay]) -> None:
    scene = stage(kind)
    rest = RestWay(scene.server.http, scene.server.grpc)
    session = begun(rest)
    rest.close()
    scene.server.stop()
    manifest = scene.bundle / "manifest.json"
    before = manifest.read_text()
    digest = re.search(r'"digest": "([0-9a-f]+)"', before)
    assert digest
    # Its states would fit: only the digest says that it is another one.
    other = write_tiny_bundle(scene.folder / "other", gain=0.25)
    scene.server._command[scene.server._command.index(str(scene.bundle))] = str(other)
    scene.server.start()
    way = scene.way()
    said = way.frame(session, 3, FRAMES[3])
    expect(said, errors.ModelMismatch, way)
    assert said.details["session_model"] == digest[1]
    # Back under its own model it goes on.
    scene.server.stop()
    scene.server._command[scene.server._command.index(str(other))] = str(scene.bundle)
    scene.server.start()
    goes_on(scene.way(), session, 3)


def test_a_full_server(stage: Callable[..., Scene], kind: type[AnyWay]) -> None:
    scene = stage(kind, max_sessions="1")
    way = scene.way()
    session = begun(way)
    goes_on(way, session, 3)  # in use this very moment: not one to make room
    said = scene.way().open(FRAMES[0], MASK)
    expect(said, errors.Overloaded, way)
    assert float(said.details["retry_after_s"]) > 0
    goes_on(way, session, 4)


def test_a_store_that_is_away(stage: Callable[..., Scene], kind: type[AnyWay]) -> None:
    scene = stage(kind)
    way = scene.way()
    session = begun(way)
    store = scene.server.redis()
    store.suspend()  # killed, it would be brought back
    try:
        expect(scene.way().open(FRAMES[0], MASK), errors.Unavailable, way)
        if isinstance(way, RestWay):  # strict: no answer without the store
            expect(way.frame(session, 3, FRAMES[3]), errors.Unavailable, way)
    finally:
        store.resume()
    goes_on(way, session, 3)
    goes_on(way, session, 4)


def test_every_row_has_its_test() -> None:
    source = Path(__file__).read_text()
    tables: set[Any] = {*STATUS_CODES, *ERRORS}
    leaves = {each for each in tables if not each.__subclasses__()}
    # Those of opening have a file of their own (test_opening_twice), and so do live sessions (test_scenarios).
    leaves -= {errors.FrameDropped, errors.IdempotencyKeyInUse, errors.IdempotencyKeyReused}
    assert {each.__name__ for each in leaves if f"errors.{each.__name__}" not in source} == set()
