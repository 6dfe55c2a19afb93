"""Frame indices: what is accepted, what comes again, what is refused; and frames that nobody could use."""

from __future__ import annotations

import asyncio
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.core.errors import (
    FrameAcknowledged,
    FrameGap,
    InputTooLarge,
    InvalidImage,
    InvalidInput,
    Overloaded,
    S2sppError,
    UnsupportedMedia,
)
from service.core.types import EncodedImage, ImageU8
from service.engine import EngineLimits
from service.imaging import ImageLimits
from tests.fakes.engine_world import RELAXED, STRICT, World, raw_frame, undisturbed
from tests.fakes.waiting import until

BAD = EncodedImage(b"this is no picture")


async def test_a_frame_sent_again_gets_the_same_bytes(world: World) -> None:
    session = await world.open()
    first = await world.post(session, 1)
    again = await asyncio.gather(*(world.post(session, 1) for _ in range(3)))
    assert all(delivered.answer is first.answer for delivered in again)
    assert len(world.runtime.batches) == 2, "the model ran once for opening and once for frame 1"


async def test_a_frame_sent_again_while_it_is_under_way_is_computed_once(world: World) -> None:
    session = await world.open()
    world.runtime.gate.clear()
    calls = [asyncio.create_task(world.post(session, 1)) for _ in range(3)]
    await asyncio.sleep(0.01)
    world.runtime.gate.set()
    answers = {delivered.answer.mask for delivered in await asyncio.gather(*calls)}
    assert answers == {(await undisturbed(1))[0].mask}
    assert len(world.runtime.batches) == 2


async def test_posting_the_next_frame_acknowledges_the_one_before(world: World) -> None:
    session = await world.open()
    for index in (1, 2, 3):
        await world.post(session, index)
    with pytest.raises(FrameAcknowledged) as raised:
        await world.post(session, 2)
    assert raised.value.metadata["expected"] == "4"
    await world.post(session, 3)
    for index in (0, -5):
        with pytest.raises(FrameAcknowledged):
            await world.post(session, index)


async def test_what_was_not_acknowledged_stays(world: World) -> None:
    session = await world.open()
    answers = [(await world.post(session, index, received_through=0)).answer for index in (1, 2, 3, 4)]
    assert (await world.post(session, 2, received_through=0)).answer is answers[1]
    await world.post(session, 5, received_through=3)
    with pytest.raises(FrameAcknowledged):
        await world.post(session, 3, received_through=3)
    assert (await world.post(session, 4, received_through=3)).answer is answers[3]


async def test_a_gap_names_the_frame_that_is_expected_and_takes_nothing(world: World) -> None:
    session = await world.open()
    first = await world.post(session, 1)
    with pytest.raises(FrameGap, match="frame 2 is expected") as raised:
        await world.post(session, 4)
    assert raised.value.metadata == {"expected": "2"}
    assert (await world.post(session, 1)).answer is first.answer, "a refused frame acknowledges nothing"
    assert (await world.post(session, 2)).answer == (await undisturbed(2))[1]


async def test_an_answer_that_is_not_made_yet_cannot_be_acknowledged(world: World) -> None:
    session = await world.open()
    world.runtime.gate.clear()
    calls = [asyncio.create_task(world.post(session, index, received_through=99)) for index in (1, 2)]
    await asyncio.sleep(0)
    repeat = asyncio.create_task(world.post(session, 1))
    await asyncio.sleep(0)
    world.runtime.gate.set()
    one, _ = await asyncio.gather(*calls)
    assert (await repeat).answer is one.answer


@pytest.mark.parametrize("durability", [STRICT, RELAXED])
async def test_many_frames_at_once_are_answered_in_their_order(world: World, durability: str) -> None:
    expected = await undisturbed(40)
    session = await world.open()

    async def post(index: int) -> bytes:
        # Large files among small: the order of decoding is not the order of the frames.
        frame = png(index) if index % 3 == 0 else raw_frame(index)
        return (await world.post(session, index, frame, durability)).answer.mask

    masks = await asyncio.gather(*(post(index) for index in range(1, 41)))
    assert masks == [answer.mask for answer in expected]


def png(seed: int) -> EncodedImage:
    frame = raw_frame(seed)
    file = io.BytesIO()
    Image.frombytes("RGB", (frame.width, frame.height), frame.data).save(file, "PNG")
    return EncodedImage(file.getvalue())


async def test_the_next_frame_is_decoded_while_the_model_runs(world: World) -> None:
    session = await world.open()
    world.runtime.gate.clear()
    first = asyncio.create_task(world.post(session, 1))
    bad = asyncio.create_task(world.post(session, 2, BAD))
    await asyncio.sleep(0.01)
    assert not bad.done(), "answers keep their order, errors too"
    world.runtime.gate.set()
    await first
    with pytest.raises(UnsupportedMedia):
        await bad


async def test_callers_that_depart_cancel_nothing(world: World) -> None:
    expected = await undisturbed(6)
    session = await world.open()
    world.runtime.gate.clear()
    calls = [asyncio.create_task(world.post(session, index)) for index in range(1, 6)]
    await asyncio.sleep(0.01)
    for call in (calls[0], calls[2], calls[4]):
        call.cancel()
    await asyncio.wait([calls[0], calls[2], calls[4]])
    world.runtime.gate.set()
    assert (await calls[1]).answer == expected[1]
    assert (await calls[3]).answer == expected[3]
    assert (await world.post(session, 5)).answer == expected[4]
    assert (await world.post(session, 6)).answer == expected[5]


async def test_the_window_is_bounded_and_opens_with_acknowledgement() -> None:
    world = World(EngineLimits(window=4))
    session = await world.open()
    for index in range(1, 5):
        await world.post(session, index, received_through=0)
    with pytest.raises(Overloaded) as raised:
        await world.post(session, 5, received_through=0)
    assert raised.value.retry_after_s > 0
    assert (await world.post(session, 2, received_through=0)).answer.frame_index == 2
    expected = await undisturbed(5)
    assert (await world.post(session, 5, received_through=1)).answer == expected[4]
    await world.end()


async def test_frames_under_way_count_in_the_window() -> None:
    world = World(EngineLimits(window=3))
    session = await world.open()
    world.runtime.gate.clear()
    calls = [asyncio.create_task(world.post(session, index)) for index in range(1, 5)]
    await until(calls[3].done)
    with pytest.raises(Overloaded):
        await calls[3]
    world.runtime.gate.set()
    await asyncio.gather(*calls[:3])
    await world.post(session, 4)
    await world.end()


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (BAD, UnsupportedMedia),
        (EncodedImage(b""), InvalidImage),
        (raw_frame(1, 36, 65), InvalidImage),
        (raw_frame(1, 64, 36), InvalidImage),
        (EncodedImage(bytes(20_000)), InputTooLarge),
    ],
)
@pytest.mark.parametrize("durability", [STRICT, RELAXED])
@pytest.mark.parametrize("then", ["the same index", "the next index"])
async def test_a_bad_frame_takes_its_index_and_nothing_else(
    frame: EncodedImage, error: type[InvalidInput], durability: str, then: str
) -> None:
    world = World(EngineLimits(images=ImageLimits(max_bytes=10_000)))
    session = await world.open()
    await world.post(session, 1, durability=durability)
    with pytest.raises(error):
        await world.post(session, 2, frame, durability)
    assert (await world.engine.describe(session)).next_frame == 3
    # As if the bad frame had not been there: frame 2 or 3 is what frame 2 is without it.
    index = 2 if then == "the same index" else 3
    answer = (await world.post(session, index, raw_frame(2), durability)).answer
    assert answer.frame_index == index
    assert answer.mask == (await undisturbed(2))[1].mask
    await world.end()


async def test_a_bad_frame_of_another_size_names_both(world: World) -> None:
    session = await world.open()
    with pytest.raises(InvalidImage, match=r"65 x 36.*64 x 36") as raised:
        await world.post(session, 1, raw_frame(1, 36, 65))
    assert raised.value.metadata == {"height": "36", "width": "64"}


async def test_a_bad_frame_may_be_tried_until_it_is_good(world: World) -> None:
    session = await world.open()
    for _ in range(3):
        with pytest.raises(UnsupportedMedia):
            await world.post(session, 1, BAD)
    assert [(await world.post(session, n)).answer for n in (1, 2)] == await undisturbed(2)


async def test_a_bad_frame_that_others_followed_stays_bad(world: World) -> None:
    session = await world.open()
    calls = [
        asyncio.create_task(world.post(session, index, frame, received_through=0))
        for index, frame in ((1, raw_frame(1)), (2, BAD), (3, raw_frame(2)))
    ]
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(second, UnsupportedMedia)
    with pytest.raises(UnsupportedMedia):
        await world.post(session, 2, raw_frame(2), received_through=0)
    expected = await undisturbed(2)
    assert [first.answer.mask, third.answer.mask] == [answer.mask for answer in expected]  # type: ignore[union-attr]


async def test_a_model_that_fails_once_leaves_the_session_as_it_was(world: World) -> None:
    session = await world.open()
    await world.post(session, 1)
    world.runtime.failures = 1
    with pytest.raises(S2sppError, match="answering frame 2") as raised:
        await world.post(session, 2)
    assert raised.value.reason == "INTERNAL"
    assert (await world.engine.describe(session)).next_frame == 2
    with pytest.raises(FrameGap):
        await world.post(session, 3)
    expected = await undisturbed(3)
    assert [(await world.post(session, index)).answer for index in (2, 3)] == expected[1:]


@pytest.mark.parametrize("durability", [STRICT, RELAXED])
async def test_frames_behind_a_failed_one_do_not_step(world: World, durability: str) -> None:
    session = await world.open()
    stepped: list[bytes] = []

    def is_third(frame: ImageU8) -> bool:
        if frame.tobytes() not in stepped:
            stepped.append(frame.tobytes())
        return stepped[2:] == [frame.tobytes()]

    world.runtime.poison = is_third
    calls = [asyncio.create_task(world.post(session, n, durability=durability)) for n in range(1, 8)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    expected = await undisturbed(9)
    assert [result.answer for result in results[:2]] == expected[:2]  # type: ignore[union-attr]
    assert isinstance(results[2], S2sppError) and results[2].reason == "INTERNAL"
    for late in results[3:]:
        assert isinstance(late, FrameGap) and late.metadata["expected"] == "3"
    world.runtime.poison = lambda frame: False
    answers = [(await world.post(session, n, durability=durability)).answer for n in range(3, 10)]
    assert answers == expected[2:]


async def test_an_answer_that_cannot_be_made_is_as_if_the_frame_had_not_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import service.engine.stepping as stepping

    make, broken = stepping.make_answer, [3]

    def fails_once(frame_index: int, *rest: object) -> object:
        if frame_index in broken:
            broken.clear()
            raise MemoryError("no room for the mask")
        return make(frame_index, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(stepping, "make_answer", fails_once)
    session = await world.open()
    calls = [asyncio.create_task(world.post(session, n)) for n in range(1, 7)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    expected = await undisturbed(6)
    assert [result.answer for result in results[:2]] == expected[:2]  # type: ignore[union-attr]
    assert isinstance(results[2], S2sppError) and results[2].reason == "INTERNAL"
    assert all(isinstance(result, FrameGap) for result in results[3:])
    assert [(await world.post(session, n)).answer for n in range(3, 7)] == expected[2:]


class Model:
    """The rules of frame indices in so many words, for comparison."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.next_frame = 1
        self.received = 0
        self.outbox: dict[int, str] = {}
        self.steps: list[int] = []  # seeds of the frames that moved the state
        self.stored: tuple[int, dict[int, str]] = (0, {})

    def post(self, index: int, good: bool, received_through: int | None, seed: int) -> str:
        if index > self.next_frame:
            return "gap"
        taken = index - 1 if received_through is None else received_through
        self.received = max(self.received, min(taken, self.next_frame - 1))
        self.outbox = {i: kept for i, kept in self.outbox.items() if i > self.received}
        if index <= self.received:
            return "acknowledged"
        retry = index == self.next_frame - 1 and self.outbox.get(index) == "bad"
        if index in self.outbox and not retry:
            return self.outbox[index]
        if not retry and len(self.outbox) >= self.window:
            return "full"
        self.next_frame = index + 1
        if good:
            self.steps.append(seed)
        self.outbox[index] = f"steps {self.steps}" if good else "bad"
        self.stored = self.received, dict(self.outbox)
        return self.outbox[index]

    def crash(self) -> None:
        """An acknowledgement is stored with the next frame; before, answers may be given once more."""
        self.received, self.outbox = self.stored[0], dict(self.stored[1])


posts = st.tuples(
    st.integers(-3, 2),  # from the frame expected next
    st.booleans(),
    st.none() | st.integers(-4, 1),  # received, from the frame expected next
    st.booleans(),  # crash before
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(posts, max_size=14))
def test_any_sequence_of_posts_follows_the_rules(sequence: list[tuple[int, bool, int | None, bool]]) -> None:
    async def play() -> None:
        world, model = World(EngineLimits(window=3)), Model(3)
        session = await world.open()
        masks: dict[str, bytes] = {}
        for seed, (offset, good, received, crash) in enumerate(sequence):
            if crash:
                world.crash()
                model.crash()
            index = model.next_frame + offset
            through = None if received is None else model.next_frame + received
            frame = raw_frame(seed) if good else BAD
            try:
                answer = (await world.post(session, index, frame, received_through=through)).answer
                assert answer.frame_index == index
                got = "answer"
            except FrameGap as gap:
                assert gap.metadata["expected"] == str(model.next_frame)
                got = "gap"
            except FrameAcknowledged:
                got = "acknowledged"
            except UnsupportedMedia:
                got = "bad"
            except Overloaded:
                got = "full"
            expected = model.post(index, good, through, seed)
            if not expected.startswith("steps"):
                assert got == expected
                continue
            assert got == "answer"
            # Equal histories give equal masks, and other histories others.
            assert masks.setdefault(expected, answer.mask) == answer.mask
        assert len(set(masks.values())) == len(masks)
        assert (await world.engine.describe(session)).next_frame == model.next_frame
        await world.end()

    asyncio.run(play())


async def test_a_bad_frame_tried_anew_that_fails_again_stays_what_it_was(world: World) -> None:
    session = await world.open()
    with pytest.raises(InvalidInput):
        await world.post(session, 1, EncodedImage(b"junk"))
    assert (await world.engine.describe(session)).committed_frame == 1
    world.runtime.failures = 1
    with pytest.raises(S2sppError):
        await world.post(session, 1)
    info = await world.engine.describe(session)
    assert (info.next_frame, info.committed_frame) == (2, 1)
    assert (await world.post(session, 2)).answer.frame_index == 2
