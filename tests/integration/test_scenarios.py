"""One list of scenarios for every way in, against a real server and its real Redis: one process that is all, or a
gateway and two workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from tests.integration.cluster_processes import Cluster
from tests.integration.server_process import ServerProcess, make_clip
from tests.integration.tiny_bundle import write_tiny_bundle
from tests.integration.ways import WAYS, GrpcWay, RestWay, Said, Way

FRAMES, MASK = make_clip(9)
Begin = Callable[[], Way]


Served = ServerProcess | Cluster


@pytest.fixture(scope="module", params=["embedded", "cluster"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("scenarios")
    bundle = write_tiny_bundle(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REDIS_URL", raising=False)
        whole: Served = ServerProcess(folder / "data", str(bundle), threads=1)
        with Cluster(folder / "cluster", bundle) if request.param == "cluster" else whole as server:
            yield server


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def begin(request: pytest.FixtureRequest, server: Served) -> Iterator[Begin]:
    """Another caller of the same way, each with connections of its own."""
    begun: list[Way] = []

    def begin() -> Way:
        begun.append(request.param(server.http, server.grpc))
        return begun[-1]

    yield begin
    for way in begun:
        way.close()


@pytest.fixture
def way(begin: Begin) -> Way:
    return begin()


@pytest.fixture(scope="module")
def expected(server: Served) -> list[bytes]:
    """The masks of frames 1 to 8 of a session that nothing happens to."""
    return follow(RestWay(server.http, server.grpc), None)


def opened(way: Way, flow: str = "lossless") -> str:
    said = way.open(FRAMES[0], MASK, flow)
    assert not said.reason, said
    return said.session


def follow(way: Way, session: str | None, first: int = 1, last: int = 8) -> list[bytes]:
    session = session or opened(way)
    masks = []
    for index in range(first, last + 1):
        said = way.frame(session, index, FRAMES[index])
        assert (said.reason, said.frame_index) == ("", index), said
        masks.append(said.mask)
    return masks


def corner(object_id: int, left: int) -> bytes:
    labels = np.zeros((90, 140), np.uint8)
    labels[4:30, left : left + 30] = object_id
    return cv2.imencode(".png", labels)[1].tobytes()


def test_every_frame_gets_its_mask_whichever_way(way: Way, expected: list[bytes]) -> None:
    assert follow(way, None) == expected and len(set(expected)) > 4


def test_a_session_may_change_its_way_between_any_two_frames(way: Way, server: Served, expected: list[bytes]) -> None:
    session = opened(way)
    masks = follow(way, session, 1, 3)
    for number, other in enumerate(WAYS):
        next_way = other(server.http, server.grpc)
        masks += follow(next_way, session, 4 + number, 4 + number)
        next_way.close()
    assert masks == expected[:6]


def test_a_bad_picture_takes_its_index_and_nothing_else(way: Way, expected: list[bytes]) -> None:
    session = opened(way)
    follow(way, session, 1, 2)
    assert way.frame(session, 3, b"no picture").reason == "UNSUPPORTED_MEDIA"
    # As if frame 3 had never been filmed.
    said = way.frame(session, 4, FRAMES[3])
    assert (said.frame_index, said.mask) == (4, expected[2])


def test_answers_that_were_not_taken_come_again(way: Way, begin: Begin, expected: list[bytes]) -> None:
    session = opened(way)
    for index in (1, 2, 3):
        way.frame(session, index, FRAMES[index], received_through=0)
    if isinstance(way, RestWay):
        again = [way.frame(session, index, b"whatever", received_through=0).mask for index in (1, 2, 3)]
    else:
        where, *answers = begin().resume(session, 0)
        assert where.frame_index == 4
        again = [answer.mask for answer in answers]
    assert again == expected[:3]


def test_objects_are_added_corrected_and_removed(way: Way, begin: Begin) -> None:
    found: list[list[Said]] = []
    for each in (way, begin()):
        session, said = opened(each), []
        for index in range(1, 9):
            said.append(each.frame(session, index, FRAMES[index]))
            if index == 2:
                added = each.draw(session, 2, FRAMES[2], corner(9, 10), ordinal=1)
                assert added.object_ids == (1, 5, 9), added
                assert each.draw(session, 2, FRAMES[2], corner(9, 10), ordinal=1) == added, "the same again"
            if index == 4:
                assert each.draw(session, 4, FRAMES[4], corner(9, 80)).object_ids == (1, 5, 9)
                assert each.remove(session, 4, 1).object_ids == (5, 9)
        found.append(said)
    assert found[0] == found[1]
    assert [said.object_ids for said in found[0]] == [(1, 5)] * 2 + [(1, 5, 9)] * 2 + [(5, 9)] * 4


def test_a_session_goes_on_after_kill_nine(way: Way, begin: Begin, server: Served, expected: list[bytes]) -> None:
    session = opened(way)
    masks = follow(way, session, 1, 4)
    server.kill()
    server.start()
    later = begin()
    (where, *_) = later.resume(session, 4 if not isinstance(later, RestWay) else None)
    # Frames that were not stored yet are sent once more, and get the same.
    for index in range(where.frame_index, 9):
        said = later.frame(session, index, FRAMES[index])
        assert said.frame_index == index
        masks[index - 1 :] = [said.mask]
    assert masks == expected


def test_a_live_session_may_skip_and_is_told_of_drops(way: Way) -> None:
    session = opened(way, "realtime")
    assert way.frame(session, 1, FRAMES[1]).frame_index == 1
    if isinstance(way, RestWay | GrpcWay):  # on the WebSocket each picture is the next frame
        assert way.frame(session, 7, FRAMES[2], received_through=1).frame_index == 7
        assert way.frame(session, 4, FRAMES[2], received_through=1).reason == "FRAME_DROPPED"
        assert way.frame(session, 8, FRAMES[3]).frame_index == 8
