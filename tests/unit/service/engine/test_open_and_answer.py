"""Opening a session, what an answer says, and sessions that do not feel each other."""

from __future__ import annotations

import asyncio
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from s2spp import rle
from service.core.errors import (
    InvalidImage,
    InvalidInput,
    InvalidMask,
    Overloaded,
    S2sppError,
    SessionUnknown,
    Unavailable,
    UnsupportedMedia,
)
from service.core.types import EncodedImage, MaskFormat, SessionOptions, new_session_id
from service.engine import EngineLimits
from service.engine.pixels import VISIBLE_PROBABILITY, make_answer
from tests.fakes.engine_world import RAW, World, first_labels, raw_frame, raw_mask, undisturbed
from tests.fakes.runtime import INFO


async def test_opening_says_what_the_session_is_and_stores_it_first(world: World) -> None:
    opened = await world.opened(objects=3)
    info = opened.info
    assert (info.height, info.width, info.object_ids) == (36, 64, (1, 3, 5))
    assert (info.next_frame, info.committed_frame) == (1, 0)
    assert (info.model, info.model_digest) == (INFO.name, INFO.digest)
    assert info.expires_in_s == world.limits.idle_timeout_s
    assert world.wire.saves == [(1, True)]
    stored = await world.store.load(info.session)
    changing, constant = stored.state.changing.tensors(), stored.state.constant.tensors()
    assert opened.state_bytes == sum(array.nbytes for array in (*changing.values(), *constant.values()))
    assert set(constant) == {"first"} and set(changing) == {"memory", "steps"}
    assert await world.engine.describe(info.session) == info
    assert list(world.engine.models()) == [INFO]
    await world.engine.ready()


async def test_session_ids_are_not_to_be_guessed(world: World) -> None:
    one, other = await world.open(), await world.open()
    assert one != other and len(one) == 32


@pytest.mark.parametrize(
    ("frame", "mask", "error", "says"),
    [
        (raw_frame(0), raw_mask(first_labels(36, 65)), InvalidMask, r"65 x 36.*64 x 36"),
        (raw_frame(0), raw_mask(first_labels() * 0), InvalidMask, "empty"),
        (
            raw_frame(0),
            raw_mask(np.arange(252, dtype=np.uint8).reshape(12, 21).repeat(3, 0).repeat(4, 1)[:, :64]),
            InvalidMask,
            r"\d\d\d objects; at most",
        ),
        (EncodedImage(b"GIF89a..."), raw_mask(first_labels()), UnsupportedMedia, "frame"),
        (raw_frame(0), EncodedImage(b"GIF89a..."), UnsupportedMedia, "mask"),
        (raw_frame(0), EncodedImage(b""), InvalidImage, "mask"),
    ],
)
async def test_an_unusable_opening_leaves_nothing_behind(
    world: World, frame: EncodedImage, mask: EncodedImage, error: type[InvalidInput], says: str
) -> None:
    with pytest.raises(error, match=says):
        await world.engine.open(frame, mask, RAW)
    assert world.wire.saves == [] and world.watcher.in_memory == 0 and world.runtime.batches == []


async def test_an_opening_that_cannot_be_stored_is_no_session() -> None:
    world = World(EngineLimits(max_sessions=1))
    world.wire.failing = True
    with pytest.raises(Unavailable):
        await world.open()
    world.wire.failing = False
    session = await world.open()  # the permit came back
    assert (await world.post(session, 1)).answer.frame_index == 1
    await world.end()


async def test_a_model_that_fails_on_the_opening_is_told_as_internal(world: World) -> None:
    world.runtime.failures = 1
    with pytest.raises(S2sppError, match="opening a session") as raised:
        await world.open()
    assert raised.value.reason == "INTERNAL"
    await world.open()


async def test_a_full_server_refuses_before_any_work() -> None:
    world = World(EngineLimits(max_sessions=2))
    session = await world.open()
    await world.open()
    with pytest.raises(Overloaded) as raised:
        await world.engine.open(EncodedImage(b"not even looked at"), EncodedImage(b""), RAW)
    assert 0 < raised.value.retry_after_s <= 1
    await world.engine.delete(session)
    await world.open()
    await world.end()


async def test_openings_under_way_count() -> None:
    world = World(EngineLimits(max_sessions=2))
    world.runtime.gate.clear()
    opening = [asyncio.create_task(world.open()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await world.open()
    opening[0].cancel()
    await asyncio.wait(opening[:1])
    world.runtime.gate.set()
    await world.open()
    await opening[1]
    await world.end()


async def test_unknown_sessions_are_unknown(world: World) -> None:
    for call in (
        world.post(new_session_id(), 1),
        world.engine.describe(new_session_id()),
        world.engine.delete(new_session_id()),
    ):
        with pytest.raises(SessionUnknown):
            await call


async def test_a_png_answer_holds_the_raw_answer(world: World) -> None:
    png = await world.open(options=SessionOptions(MaskFormat.PNG))
    raw = await world.open(options=RAW)
    for index in (1, 2, 3):
        one, other = (await world.post(png, index)).answer, (await world.post(raw, index)).answer
        with Image.open(io.BytesIO(one.mask)) as image:
            assert image.mode == "P" and image.size == (64, 36)
            assert np.asarray(image).tobytes() == other.mask
        assert one.objects == other.objects
        assert (one.height, one.width, one.mask_format) == (36, 64, MaskFormat.PNG)


def test_run_lengths_and_probabilities_are_those_of_the_labels() -> None:
    probability = np.random.default_rng(4).random((3, 9, 16), np.float32)
    ids, size = (4, 9, 200), (33, 47)
    raw, runs, planes = (
        make_answer(5, probability, ids, size, form, 2.5)
        for form in (MaskFormat.RAW, MaskFormat.RLE, MaskFormat.PROBABILITY)
    )
    assert raw.objects == runs.objects == planes.objects
    labels = np.frombuffer(raw.mask, np.uint8).reshape(size)
    for one in json.loads(runs.mask):
        np.testing.assert_array_equal(rle.decode(one["counts"], *one["size"]), labels == one["object_id"])
    found = cv2.imdecode(np.frombuffer(planes.mask, np.uint8), cv2.IMREAD_UNCHANGED).reshape(3, *size)
    np.testing.assert_array_equal((found >= 128).any(axis=0), labels > 0)
    # Up to ties of the rounding, the most probable one has the pixel.
    best = np.where((found >= 128).any(axis=0), np.array(ids)[found.argmax(axis=0)], 0)
    assert (best != labels).mean() < 0.01


def test_reports_agree_with_the_pixels() -> None:
    probability = np.random.default_rng(4).random((3, 9, 16), np.float32)
    probability[2] = 0.1
    answer = make_answer(5, probability, (4, 9, 200), (33, 47), MaskFormat.RAW, 2.5)
    labels = np.frombuffer(answer.mask, np.uint8).reshape(33, 47)
    frame = [cv2.resize(row, (47, 33)) for row in probability]
    for row, report in zip(frame, answer.objects, strict=True):
        inside = labels == report.object_id
        assert report.area == inside.sum()
        if inside.any():
            assert report.visible == (row[inside].max() >= VISIBLE_PROBABILITY)
            y, x = np.nonzero(inside)
            assert report.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
            assert report.confidence == pytest.approx(row[inside].mean(dtype=np.float64))
    assert answer.objects[2].box == (0, 0, 0, 0) and answer.objects[2].confidence == 0
    assert not answer.objects[2].visible
    assert (answer.frame_index, answer.compute_ms) == (5, 2.5)


@pytest.mark.parametrize("size", [(18, 32), (144, 256), (480, 854)])
def test_an_object_is_visible_where_the_model_is_sure_of_a_pixel(size: tuple[int, int]) -> None:
    """Whatever the area: a sure object of few pixels is, a large unsure one is not, and neither is one that is sure
    only where another object has the pixel."""
    probability = np.zeros((4, 18, 32), np.float32)
    probability[0, 2:4, 2:4] = 0.999
    probability[1, 8:16, 2:30] = 0.9
    probability[2, 2:6, 20:24] = 0.6
    probability[2, 2:4, 20:24], probability[3, 2:4, 20:24] = 0.995, 0.999
    answer = make_answer(5, probability, (1, 2, 3, 4), size, MaskFormat.RAW, 0.0)
    assert [report.visible for report in answer.objects] == [True, False, False, True]
    assert all(report.area for report in answer.objects), "all of them have pixels in the mask"


SHAPES = [
    (36, 64, 1),
    (36, 64, 3),
    (64, 36, 2),
    (50, 50, 1),
    (36, 64, 2),
    (33, 47, 4),
    (200, 20, 1),
    (50, 50, 5),
]


@pytest.mark.parametrize("lanes", [1, 2, 5])
async def test_eight_sessions_at_once_answer_as_each_alone(lanes: int) -> None:
    world = World(lanes=lanes)
    alone = [await undisturbed(6, 100 * n, height, width, objects) for n, (height, width, objects) in enumerate(SHAPES)]
    world.runtime.delay_s = 0.002  # so that they meet
    together = await asyncio.gather(
        *(world.answers(6, 100 * n, height, width, objects) for n, (height, width, objects) in enumerate(SHAPES))
    )
    assert together == alone
    if lanes == 1:
        assert max(frames for _, frames, _ in world.runtime.batches) > 1, "no two sessions ever met in a batch"
    else:
        assert False in world.runtime.wide, "no two sessions ever met"
    assert len({answer.mask for answers in alone for answer in answers}) > 40, "the fake's masks hardly differ"
    await world.end()


async def test_telemetry_hears_of_it(world: World) -> None:
    session = await world.open()
    await world.post(session, 1)
    await world.post(session, 1)  # given again: not answered anew
    with pytest.raises(InvalidImage):
        await world.post(session, 2, EncodedImage(b""))
    await world.engine.delete(session)
    assert world.watcher.events == {"opened": 1, "INVALID_IMAGE": 1, "deleted": 1, "stored": 2}
    (times,) = world.watcher.times
    assert times.compute.seconds == pytest.approx(0.001)
    assert all(stage.seconds > 0 for stage in times.stages().values())
    assert world.watcher.in_memory == 0
