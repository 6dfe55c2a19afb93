"""Objects that are added, drawn anew and removed while a session runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.errors import (
    FrameAcknowledged,
    FrameGap,
    InvalidImage,
    InvalidMask,
    InvalidOption,
    Overloaded,
    S2sppError,
    SessionUnknown,
    UnsupportedMedia,
)
from service.core.types import Answer, DrawObjects, EncodedImage, LabelMap, RemoveObject, SessionId, SessionInfo
from service.engine import EngineLimits
from tests.fakes.engine_world import RAW, RELAXED, STRICT, World, first_labels, raw_frame, raw_mask


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(EngineLimits(max_objects=4))
    yield world
    await world.end()


def drawn(object_id: int, left: int = 4, top: int = 4) -> LabelMap:
    labels = np.zeros((36, 64), np.uint8)
    labels[top : top + 16, left : left + 20] = object_id
    return labels


def draw(object_id: int, index: int, left: int = 4) -> DrawObjects:
    """On frame `index` of the usual clip."""
    return DrawObjects(raw_frame(index), raw_mask(drawn(object_id, left)))


async def state_of(world: World, session: SessionId, object_id: int) -> dict[str, NDArray[np.generic]]:
    """As it is stored."""
    snapshot = await world.store.load(session)
    row = snapshot.object_ids.index(object_id)
    own = snapshot.state.take([row])
    return {**own.changing.tensors(), **own.constant.tensors()}


def assert_equal(one: dict[str, NDArray[np.generic]], other: dict[str, NDArray[np.generic]]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


async def change(
    world: World,
    session: SessionId,
    index: int | None,
    what: DrawObjects | RemoveObject,
    ordinal: int | None = None,
) -> SessionInfo:
    return await world.engine.change(session, index, what, durability=STRICT, ordinal=ordinal)


async def follow(world: World, session: SessionId, first: int, last: int) -> list[Answer]:
    return [(await world.post(session, index)).answer for index in range(first, last + 1)]


async def alone(world: World, object_id: int, start: int, last: int) -> SessionId:
    """A session that began with this object alone, on frame `start`, and saw every frame since."""
    session = (await world.engine.open(raw_frame(start), raw_mask(drawn(object_id)), RAW)).info.session
    for index in range(start + 1, last + 1):
        await world.post(session, index - start, raw_frame(index))
    return session


@pytest.mark.parametrize("known", [False, True], ids=["added", "drawn anew"])
async def test_a_drawn_object_is_followed_as_from_a_session_of_its_own_and_the_others_go_on(
    world: World, known: bool
) -> None:
    session, undisturbed = await world.open(), await world.open()
    await follow(world, session, 1, 3)
    object_id = 1 if known else 7
    info = await change(world, session, 3, draw(object_id, 3))
    assert info.object_ids == ((1, 3) if known else (1, 3, 7)) and info.next_frame == 4
    answers = await follow(world, session, 4, 6)
    await follow(world, undisturbed, 1, 6)
    assert [report.object_id for report in answers[0].objects] == list(info.object_ids)
    assert_equal(
        await state_of(world, session, object_id), await state_of(world, await alone(world, object_id, 3, 6), object_id)
    )
    assert_equal(await state_of(world, session, 3), await state_of(world, undisturbed, 3))


async def test_a_removed_object_is_gone_and_the_others_go_on(world: World) -> None:
    session, undisturbed = await world.open(objects=3), await world.open(objects=3)
    await follow(world, session, 1, 2)
    info = await change(world, session, 2, RemoveObject(3))
    assert info.object_ids == (1, 5)
    (answer,) = await follow(world, session, 3, 3)
    await follow(world, undisturbed, 1, 3)
    assert [report.object_id for report in answer.objects] == [1, 5]
    for object_id in (1, 5):
        assert_equal(await state_of(world, session, object_id), await state_of(world, undisturbed, object_id))
    # Its id may come back.
    assert (await change(world, session, 3, draw(3, 3))).object_ids == (1, 5, 3)


async def test_an_object_may_be_drawn_on_the_first_frame_before_any_other(world: World) -> None:
    session = await world.open()
    assert (await change(world, session, 0, draw(9, 0))).object_ids == (1, 3, 9)
    await follow(world, session, 1, 2)
    assert_equal(await state_of(world, session, 9), await state_of(world, await alone(world, 9, 0, 2), 9))


async def test_changes_take_effect_in_the_order_of_the_calls_among_frames_under_way(world: World) -> None:
    session = await world.open()
    world.runtime.gate.clear()
    frames = [asyncio.create_task(world.post(session, index, durability=RELAXED)) for index in (1, 2)]
    await asyncio.sleep(0)
    added = asyncio.create_task(world.engine.change(session, 2, draw(7, 2), durability=RELAXED))
    await asyncio.sleep(0)
    frames += [asyncio.create_task(world.post(session, 3, durability=RELAXED))]
    await asyncio.sleep(0)
    removed = asyncio.create_task(world.engine.change(session, 3, RemoveObject(1), durability=RELAXED))
    await asyncio.sleep(0)
    frames += [asyncio.create_task(world.post(session, 4, durability=RELAXED))]
    await asyncio.sleep(0.01)
    world.runtime.gate.set()
    answers = [(await frame).answer for frame in frames]
    await added
    assert (await removed).object_ids == (3, 7)
    ids = [tuple(report.object_id for report in answer.objects) for answer in answers]
    assert ids == [(1, 3), (1, 3), (1, 3, 7), (3, 7)]


async def test_a_numbered_change_sent_again_has_no_effect_also_after_a_crash(world: World) -> None:
    session = await world.open()
    await follow(world, session, 1, 2)
    await change(world, session, 2, draw(7, 2), 1)
    saves = world.wire.calls["save"]
    await change(world, session, 2, draw(7, 2), 1)
    await change(world, session, 2, RemoveObject(3), 2)
    await change(world, session, 2, RemoveObject(3), 2)
    assert world.wire.calls["save"] == saves + 1
    world.crash()
    assert (await change(world, session, 2, RemoveObject(3), 2)).object_ids == (1, 7)
    assert (await change(world, session, 2, draw(7, 2), 1)).object_ids == (1, 7)
    assert world.wire.calls["save"] == 0
    await follow(world, session, 3, 4)
    assert_equal(await state_of(world, session, 7), await state_of(world, await alone(world, 7, 2, 4), 7))


async def test_a_change_sent_again_after_the_frame_behind_it_was_made(world: World) -> None:
    """Its answer was lost with the connection; a resume then names the frame behind it, which is still under way."""
    session = await world.open()
    await follow(world, session, 1, 1)
    await change(world, session, 1, RemoveObject(1), 1)
    await change(world, session, 1, draw(7, 1), 2)
    world.runtime.gate.clear()
    frames = [asyncio.create_task(world.post(session, index, None, RELAXED, 0)) for index in (2, 3)]
    await asyncio.sleep(0.01)
    assert (await change(world, session, 1, RemoveObject(1), 1)).object_ids == (3, 7)
    assert (await change(world, session, 1, draw(7, 1), None)).object_ids == (3, 7), "the last of them"
    for another in (change(world, session, 1, RemoveObject(3), 1), change(world, session, 1, RemoveObject(3))):
        with pytest.raises(FrameAcknowledged):
            await another
    world.runtime.gate.set()
    await asyncio.gather(*frames)
    assert (await world.engine.describe(session)).object_ids == (3, 7)


async def test_also_after_a_bad_frame_that_was_tried_anew(world: World) -> None:
    session = await world.open()
    await follow(world, session, 1, 1)
    with pytest.raises(UnsupportedMedia):
        await world.post(session, 2, EncodedImage(b"no picture"), RELAXED, 0)
    await world.post(session, 2, raw_frame(2), RELAXED, 0)
    await change(world, session, 2, draw(7, 2), 1)
    await world.post(session, 3, raw_frame(3), RELAXED, 0)
    assert 7 in (await change(world, session, 2, draw(7, 2), 1)).object_ids


async def test_an_unnumbered_change_is_the_same_again_only_right_after_itself(world: World) -> None:
    session, once = await world.open(), await world.open()
    for what in (draw(7, 0), draw(7, 0), draw(7, 0, left=30), draw(7, 0)):
        await change(world, session, None, what)
    await change(world, once, None, draw(7, 0))
    await follow(world, session, 1, 2)
    await follow(world, once, 1, 2)
    assert_equal(await state_of(world, session, 7), await state_of(world, once, 7))


async def test_the_number_of_a_change_says_which_it_is(world: World) -> None:
    session = await world.open()
    await change(world, session, 0, draw(7, 0), 1)
    await change(world, session, 0, draw(7, 0, left=30), 2)
    assert (await change(world, session, 0, draw(7, 0), 3)).object_ids == (1, 3, 7)
    with pytest.raises(FrameGap, match="change 4 after frame 0 is expected"):
        await change(world, session, 0, RemoveObject(1), 5)
    with pytest.raises(InvalidOption, match="change 2 after frame 0 was another one"):
        await change(world, session, 0, RemoveObject(1), 2)
    await follow(world, session, 1, 1)
    assert (await change(world, session, 1, RemoveObject(1), 1)).object_ids == (3, 7)


async def test_a_change_that_fails_leaves_its_number_open_and_those_under_way_behind_it_fail_too(world: World) -> None:
    session = await world.open()
    world.runtime.gate.clear()
    frame = asyncio.create_task(world.post(session, 1, durability=RELAXED))
    await asyncio.sleep(0)
    changes = []
    for number, what in enumerate((RemoveObject(99), RemoveObject(1)), 1):
        changes.append(asyncio.create_task(change(world, session, 1, what, number)))
        await asyncio.sleep(0)
    world.runtime.gate.set()
    await frame
    first, second = await asyncio.gather(*changes, return_exceptions=True)
    assert isinstance(first, InvalidOption)
    assert isinstance(second, FrameGap) and second.metadata["expected_ordinal"] == "1"
    assert (await change(world, session, 1, RemoveObject(1), 1)).object_ids == (3,)


async def test_a_frame_that_the_model_failed_on_leaves_the_changes_before_it_made(world: World) -> None:
    session = await world.open()
    await follow(world, session, 1, 1)
    await change(world, session, 1, draw(7, 1), 1)
    world.runtime.poison = lambda frame: True
    with pytest.raises(S2sppError):
        await world.post(session, 2)
    world.runtime.poison = lambda frame: False
    saves = world.wire.calls["save"]
    assert (await change(world, session, 1, draw(7, 1), 1)).object_ids == (1, 3, 7)
    assert world.wire.calls["save"] == saves
    assert (await change(world, session, 1, RemoveObject(3), 2)).object_ids == (1, 7)
    await follow(world, session, 2, 3)
    assert_equal(await state_of(world, session, 7), await state_of(world, await alone(world, 7, 1, 3), 7))


async def test_a_bad_frame_is_not_sent_anew_once_objects_were_drawn_after_it(world: World) -> None:
    session = await world.open()
    with pytest.raises(S2sppError):
        await world.post(session, 1, EncodedImage(b"no picture"))
    await change(world, session, 1, draw(7, 1), 1)
    with pytest.raises(UnsupportedMedia):
        await world.post(session, 1)
    await follow(world, session, 2, 3)
    assert_equal(await state_of(world, session, 7), await state_of(world, await alone(world, 7, 1, 3), 7))


async def test_changes_between_two_frames_are_bounded() -> None:
    world = World(EngineLimits(window=3))
    session = await world.open()
    for number in range(3):
        await change(world, session, 0, draw(7, 0, left=4 + number))
    with pytest.raises(Overloaded, match="send the next frame"):
        await change(world, session, 0, draw(7, 0))
    await follow(world, session, 1, 1)
    await change(world, session, 1, draw(7, 1))
    await world.end()


async def test_what_was_not_stored_when_the_process_died_is_made_when_sent_again(world: World) -> None:
    session = await world.open()
    await follow(world, session, 1, 2)
    await world.engine.change(session, 2, draw(7, 2), durability=RELAXED)
    world.crash()
    assert (await world.engine.describe(session)).object_ids == (1, 3)
    assert (await change(world, session, 2, draw(7, 2))).object_ids == (1, 3, 7)
    await follow(world, session, 3, 3)
    assert_equal(await state_of(world, session, 7), await state_of(world, await alone(world, 7, 2, 3), 7))


async def test_constant_states_are_stored_again_only_when_objects_change(world: World) -> None:
    session = await world.open()
    await follow(world, session, 1, 1)
    await change(world, session, 1, draw(7, 1))
    await follow(world, session, 2, 3)
    assert [constant for _, constant in world.wire.saves] == [True, False, True, False, False]


@pytest.mark.parametrize(
    ("index", "what", "error", "says"),
    [
        (3, draw(7, 3), FrameGap, "frame 3 is expected next"),
        (1, draw(7, 1), FrameAcknowledged, "frame 2 has come since frame 1"),
        (2, RemoveObject(8), InvalidOption, "no object 8 .* 1, 3"),
        (2, DrawObjects(raw_frame(2), raw_mask(drawn(0))), InvalidMask, "empty"),
        (2, DrawObjects(EncodedImage(b"nothing"), raw_mask(drawn(7))), S2sppError, "frame"),
        (2, DrawObjects(raw_frame(2, 36, 60), raw_mask(drawn(7)[:, :60])), InvalidImage, "60 x 36.*64 x 36"),
        (2, DrawObjects(raw_frame(2), raw_mask(drawn(7) + drawn(5, 30) + drawn(9, 4, 20))), InvalidMask, "at most 4"),
    ],
)
async def test_a_change_that_cannot_be_made_changes_nothing(
    world: World, index: int, what: DrawObjects | RemoveObject, error: type[S2sppError], says: str
) -> None:
    session, undisturbed = await world.open(), await world.open()
    for each in (session, undisturbed):
        await follow(world, each, 1, 2)
    for _ in range(2):
        with pytest.raises(error, match=says):
            await change(world, session, index, what)
    assert (await world.engine.describe(session)).object_ids == (1, 3)
    masks = [[a.mask for a in await follow(world, each, 3, 4)] for each in (session, undisturbed)]
    assert masks[0] == masks[1]


async def test_the_last_object_is_not_removed_and_unknown_sessions_are_unknown(world: World) -> None:
    session = await world.open(objects=1)
    with pytest.raises(InvalidOption, match="delete the session"):
        await change(world, session, 0, RemoveObject(1))
    await world.engine.delete(session)
    with pytest.raises(SessionUnknown):
        await change(world, session, 0, draw(1, 0))


async def test_a_model_that_fails_leaves_the_objects_and_the_same_change_may_come_again(world: World) -> None:
    session = await world.open()
    world.runtime.failures = 2
    with pytest.raises(S2sppError):
        await change(world, session, 0, draw(7, 0))
    world.runtime.failures = 0
    await follow(world, session, 1, 1)
    assert (await change(world, session, 1, draw(7, 1))).object_ids == (1, 3, 7)


async def test_a_change_behind_a_frame_that_fails_is_not_made(world: World) -> None:
    session = await world.open()
    world.runtime.poison = lambda frame: True
    frame = asyncio.create_task(world.post(session, 1))
    await asyncio.sleep(0)
    behind = asyncio.create_task(change(world, session, 1, RemoveObject(3)))
    for task, error in ((frame, S2sppError), (behind, FrameGap)):
        with pytest.raises(error):
            await task
    world.runtime.poison = lambda frame: False
    assert (await world.engine.describe(session)).object_ids == (1, 3)
    await follow(world, session, 1, 2)


async def test_too_many_objects_are_refused_before_the_model_sees_them() -> None:
    world = World(EngineLimits(max_objects=2))
    session = await world.open(objects=2)
    ran = len(world.runtime.batches)
    other = np.where(first_labels(objects=2) > 0, first_labels(objects=2) + 10, 0).astype(np.uint8)
    with pytest.raises(InvalidMask, match="4 objects"):
        await world.engine.change(session, 0, DrawObjects(raw_frame(0), raw_mask(other)), durability=STRICT)
    assert len(world.runtime.batches) == ran
    await world.end()
