"""`track` of both clients, against a real server: results, what is sent, failures, and leaving early."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import cv2
import numpy as np
import pytest

from s2spp.v1 import segmentation_pb2 as pb
from service.client import AsyncClient, Client, TrackedFrame
from service.client.errors import error_from_frame
from service.client.requests import WINDOW
from service.core.errors import (
    InputTooLarge,
    InvalidImage,
    InvalidMask,
    InvalidOption,
    Overloaded,
    OwnershipLost,
    S2sppError,
    Unavailable,
)
from service.core.types import ImageFormat, MaskFormat
from service.transport.grpc import GrpcServer
from service.transport.grpc.errors import status_of
from tests.fakes.engine import FakeEngine, indexed_png, moved
from tests.fakes.waiting import PATIENCE_S, in_thread, until

LABELS = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 0, 7], [0, 0, 0, 0, 7]], np.uint8)


def video(length: int, height: int = 3, width: int = 5) -> list[np.ndarray[Any, Any]]:
    return list(np.random.default_rng(0).integers(0, 256, (length, height, width, 3), np.uint8))


async def track(kind: str, target: str, *arguments: Any, **options: Any) -> list[TrackedFrame]:
    if kind == "sync":

        def follow() -> list[TrackedFrame]:
            with Client(target, retry_for_s=0.3) as client:
                return list(client.track(*arguments, **options))

        return await in_thread(follow)
    async with asyncio.timeout(PATIENCE_S), AsyncClient(target, retry_for_s=0.3) as client:
        return [frame async for frame in client.track(*arguments, **options)]


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("mask_format", MaskFormat)
async def test_one_result_per_frame_the_first_being_the_given_mask(
    kind: str, mask_format: MaskFormat, target: str, engine: FakeEngine
) -> None:
    frames = video(20)
    results = await track(kind, target, frames, LABELS, mask_format=mask_format)
    assert [result.frame_index for result in results] == list(range(20))
    for result in results:
        assert result.labels.dtype == np.uint8 and result.labels.flags.writeable
        np.testing.assert_array_equal(result.labels, moved(LABELS, result.frame_index))
        if mask_format is MaskFormat.PROBABILITY and result.frame_index:
            assert result.probability is not None and result.probability.shape == (2, *LABELS.shape)
            np.testing.assert_array_equal(result.probability[1], np.where(result.labels == 7, 200, 100))
        else:
            assert result.probability is None
    assert [(report.object_id, report.area, report.visible) for report in results[0].objects] == [
        (1, 3, True),
        (7, 2, True),
    ]
    assert results[0].objects[0].box == (1, 0, 2, 2) and results[0].objects[0].confidence == 1.0
    assert results[9].objects[1].box == (1, 2, 3, 4) and results[9].objects[1].confidence == 0.75
    assert (results[9].committed_frame, results[9].compute_ms) == (8, 1.5)
    assert engine.opened[0][2].mask_format is mask_format


async def test_arrays_travel_losslessly(kind: str, target: str, engine: FakeEngine) -> None:
    frames = video(4)
    await track(kind, target, frames, LABELS)
    sent = [engine.opened[0][0], *(call.frame for call in engine.calls)]
    assert [image.data for image in sent] == [frame.tobytes() for frame in frames]
    assert {(image.format, image.height, image.width) for image in sent} == {(ImageFormat.RAW_RGB8, 3, 5)}


async def test_a_view_of_an_array_is_sent_as_it_looks(kind: str, target: str, engine: FakeEngine) -> None:
    frames = [frame[::-1, ::-1, ::-1] for frame in video(2)]
    await track(kind, target, frames, LABELS)
    assert engine.calls[0].frame.data == np.ascontiguousarray(frames[1]).tobytes()


async def test_jpeg_quality_sends_jpeg_with_the_colours_in_place(kind: str, target: str, engine: FakeEngine) -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    await track(kind, target, [red, red], np.ones((16, 16), np.uint8), jpeg_quality=95)
    image = engine.calls[0].frame
    assert image.format is ImageFormat.AUTO and image.data[:2] == b"\xff\xd8"
    blue, green, back = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)[8, 8]
    assert back > 240 and max(blue, green) < 15


async def test_files_bytes_travel_as_they_are(kind: str, target: str, engine: FakeEngine) -> None:
    files = [cv2.imencode(".png", frame)[1].tobytes() for frame in video(3)]
    results = await track(kind, target, iter(files), indexed_png(LABELS))
    assert [call.frame.data for call in engine.calls] == files[1:]
    np.testing.assert_array_equal(results[0].labels, LABELS)


@pytest.mark.parametrize(
    "mask",
    [
        LABELS > 0,
        np.where(LABELS > 0, 255, 0).astype(np.uint8),
        cv2.imencode(".png", np.where(LABELS > 0, 255, 0).astype(np.uint8))[1].tobytes(),
    ],
    ids=["bool", "0 and 255", "0 and 255 in a file"],
)
async def test_a_black_and_white_mask_is_object_1(kind: str, mask: Any, target: str) -> None:
    (first,) = await track(kind, target, video(1), mask)
    np.testing.assert_array_equal(first.labels, (LABELS > 0).astype(np.uint8))
    assert [report.object_id for report in first.objects] == [1]


async def test_a_mask_of_only_255_is_object_1(kind: str, target: str) -> None:
    (first,) = await track(kind, target, video(1), np.full((3, 5), 255, np.uint8))
    assert (first.labels == 1).all()


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((3, 5, 3), np.uint8),
        np.ones((3, 5), np.float32),
        np.full((3, 5), 256),
        np.zeros((0, 5), np.uint8),
    ],
    ids=["colours", "probabilities", "id 256", "no pixels"],
)
async def test_a_mask_that_is_no_label_map_is_refused_here(kind: str, mask: Any, target: str) -> None:
    with pytest.raises(InvalidMask):
        await track(kind, target, video(1), mask)


async def test_a_mask_of_another_size_is_refused_by_the_server(kind: str, target: str) -> None:
    with pytest.raises(InvalidMask, match="size"):
        await track(kind, target, video(2, 4, 4), LABELS)


async def test_a_form_of_mask_that_there_is_not_is_named(kind: str, target: str) -> None:
    with pytest.raises(InvalidOption, match="mask_format is png, raw, rle, probability, not 'rlee'"):
        await track(kind, target, video(1), LABELS, mask_format="rlee")


async def test_no_frames(kind: str, target: str) -> None:
    with pytest.raises(InvalidOption, match="first_mask"):
        await track(kind, target, [], LABELS)


async def test_a_bad_frame_is_raised_with_its_index_after_the_results_before_it(
    kind: str, target: str, engine: FakeEngine
) -> None:
    frames = [*video(2), b"no image", *video(2)]
    with pytest.raises(InvalidImage, match="frame 2") as caught:
        await track(kind, target, frames, LABELS)
    assert caught.value.metadata["frame_index"] == "2"
    await until(lambda: engine.sessions == {})


def test_a_frame_refused_for_overload_says_which_it_was_and_when_to_come_back() -> None:
    answer = pb.FrameError(frame_index=7, status=status_of(Overloaded("full", retry_after_s=1.5)))
    error = error_from_frame(answer)
    assert isinstance(error, Overloaded) and error.retry_after_s == 1.5
    assert error.metadata["frame_index"] == "7"


async def test_a_bad_frame_may_be_reported_and_passed_over(kind: str, target: str) -> None:
    reported: list[tuple[int, S2sppError]] = []
    results = await track(
        kind,
        target,
        [*video(2), b"no image", *video(12)],
        LABELS,
        on_frame_error=lambda index, error: reported.append((index, error)),
    )
    assert [result.frame_index for result in results] == [0, 1, *range(3, 15)]
    assert [(index, type(error)) for index, error in reported] == [(2, InvalidImage)]


async def test_something_that_is_no_frame_is_named_after_the_results_before_it(kind: str, target: str) -> None:
    taken: list[int] = []

    def follow() -> None:
        with Client(target) as client:
            for result in client.track([*video(3), np.zeros((3, 5), np.uint8)], LABELS):
                taken.append(result.frame_index)

    if kind == "sync":
        with pytest.raises(InvalidImage, match=r"\[3, 5\]"):
            await in_thread(follow)
    else:
        async with AsyncClient(target) as client:
            with pytest.raises(InvalidImage, match=r"\[3, 5\]"):
                async for result in client.track([*video(3), np.zeros((3, 5), np.uint8)], LABELS):
                    taken.append(result.frame_index)
    assert taken == [0, 1, 2]


async def test_a_failing_source_is_heard_of_as_it_is(kind: str, target: str) -> None:
    def broken() -> Iterator[np.ndarray[Any, Any]]:
        yield from video(3)
        raise OSError("the camera was unplugged")

    with pytest.raises(OSError, match="unplugged"):
        await track(kind, target, broken(), LABELS)


async def test_a_lost_session_is_raised_and_not_deleted(kind: str, target: str, engine: FakeEngine) -> None:
    engine.frame_failures[2] = OwnershipLost("a newer stream has the session")
    with pytest.raises(OwnershipLost, match="newer stream"):
        await track(kind, target, video(4), LABELS)
    assert engine.deleted == []


async def test_a_server_that_is_not_there(kind: str, engine: FakeEngine, server: GrpcServer) -> None:
    target = f"127.0.0.1:{server.port}"
    await server.stop(0)
    with pytest.raises(Unavailable) as caught:
        await track(kind, target, video(2), LABELS)
    assert target in str(caught.value) and "s2spp serve" in str(caught.value)


async def test_a_server_that_goes_away_in_the_middle(
    kind: str, target: str, engine: FakeEngine, server: GrpcServer
) -> None:
    engine.hold(3)
    tracking = asyncio.create_task(track(kind, target, video(6), LABELS))
    await until(lambda: engine.in_flight > 0)
    await server.stop(0)
    with pytest.raises(Unavailable, match="cannot reach"):
        await tracking


async def test_a_frame_larger_than_the_server_takes(kind: str, target: str) -> None:
    with pytest.raises(InputTooLarge, match="jpeg_quality"):
        await track(kind, target, video(1, 1000, 1000), np.ones((1000, 1000), np.uint8))


async def test_the_session_is_deleted_at_the_end(kind: str, target: str, engine: FakeEngine) -> None:
    await track(kind, target, video(3), LABELS)
    assert engine.sessions == {} and len(engine.deleted) == 1


class CountingSource:
    """An endless video that says how many frames were fetched."""

    def __init__(self) -> None:
        self.fetched = 0

    def __iter__(self) -> Iterator[np.ndarray[Any, Any]]:
        while True:
            self.fetched += 1
            yield video(1)[0]


async def test_the_source_is_read_a_window_ahead_of_the_results_taken(target: str, engine: FakeEngine) -> None:
    source = CountingSource()
    client = Client(target)
    results = client.track(source, LABELS)
    for _ in range(11):
        await in_thread(lambda: next(results))
    # Results 0 to 10 are out; the caller has asked for no more, so frame 10 is not taken yet.
    await until(lambda: source.fetched == 10 + WINDOW)
    await in_thread(client.model)
    assert source.fetched == 10 + WINDOW
    await in_thread(results.close)
    client.close()
    assert [call.received_through for call in engine.calls][-1] <= 9
    assert engine.sessions == {}


async def test_the_async_client_reads_a_window_ahead_and_leaves_cleanly(target: str, engine: FakeEngine) -> None:
    source = CountingSource()
    async with AsyncClient(target) as client:
        async with aclosing(client.track(source, LABELS)) as results:
            async for result in results:
                if result.frame_index == 10:
                    await until(lambda: source.fetched == 10 + WINDOW)
                    await client.model()
                    assert source.fetched == 10 + WINDOW
                    break
        assert engine.sessions == {}


async def test_each_frame_acknowledges_what_its_caller_has_taken(target: str, engine: FakeEngine) -> None:
    """A source that waits for each result: by frame n, the result of frame n - 1 has been taken."""
    arrived: queue.Queue[int] = queue.Queue()

    def in_lockstep() -> Iterator[np.ndarray[Any, Any]]:
        for index, frame in enumerate(video(5)):
            if index:
                assert arrived.get(timeout=PATIENCE_S) == index - 1
            yield frame

    def follow() -> None:
        with Client(target) as client:
            for result in client.track(in_lockstep(), LABELS):
                arrived.put(result.frame_index)

    await in_thread(follow)
    assert [call.frame_index for call in engine.calls] == [1, 2, 3, 4]
    received = [call.received_through for call in engine.calls]
    assert all(index - 2 <= (taken or 0) <= index - 1 for index, taken in enumerate(received, 1))


async def test_a_result_does_not_wait_for_the_next_frame(target: str, engine: FakeEngine) -> None:
    """A live source that falls silent holds no result back."""
    silent = threading.Event()

    def camera() -> Iterator[np.ndarray[Any, Any]]:
        yield from video(3)
        silent.wait(PATIENCE_S)

    def first_three() -> list[int]:
        with Client(target) as client:
            results = client.track(camera(), LABELS)
            return [next(results).frame_index for _ in range(3)]

    try:
        assert await in_thread(first_three) == [0, 1, 2]
    finally:
        silent.set()


async def test_the_async_client_takes_an_async_source(target: str) -> None:
    async def camera() -> AsyncIterator[np.ndarray[Any, Any]]:
        for frame in video(12):
            await asyncio.sleep(0)
            yield frame

    async with AsyncClient(target) as client:
        results = [result async for result in client.track(camera(), LABELS)]
    assert [result.frame_index for result in results] == list(range(12))
    np.testing.assert_array_equal(results[11].labels, moved(LABELS, 11))


async def test_leaving_wakes_an_async_source_that_is_silent(target: str, engine: FakeEngine) -> None:
    ended = asyncio.Event()

    async def camera() -> AsyncIterator[np.ndarray[Any, Any]]:
        try:
            for frame in video(3):
                yield frame
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with AsyncClient(target) as client, aclosing(client.track(camera(), LABELS)) as results:
        assert [(await anext(results)).frame_index for _ in range(3)] == [0, 1, 2]
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
    assert engine.sessions == {}


async def test_cancelling_the_async_caller_ends_the_stream(target: str, engine: FakeEngine) -> None:
    engine.hold(2)

    async def follow() -> None:
        async with AsyncClient(target) as client:
            async for _ in client.track(video(6), LABELS):
                pass

    following = asyncio.create_task(follow())
    await until(lambda: engine.in_flight > 0)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    await until(lambda: engine.in_flight == 0)
