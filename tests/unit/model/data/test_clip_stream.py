"""The batch stream: a pure function of (seed, step), different sequences in a batch, clear refusals."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.data.clip import Clip, NotVisibleError
from model.data.davis import DavisDataset
from model.data.read import DataError
from model.data.stills import StillSource
from model.data.stream import ClipBatch, ClipStream, GrowingLength, StreamConfig
from model.data.video_source import VideoSource


@pytest.fixture
def config(davis_2016: Path, colour_stills: Path) -> StreamConfig:
    sources = (
        (VideoSource("tiny", DavisDataset(davis_2016, "train").sequences), 1.0),
        (StillSource(colour_stills), 2.0),
    )
    return StreamConfig(sources, batch=4, seed=3, size=(48, 80), length=GrowingLength(3, 5, 30), corrupt_odds=0.5)


def equal(one: ClipBatch, other: ClipBatch) -> bool:
    return one.names == other.names and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("frames_BTHWC", "masks_BTHW", "first_masks_BHW")
    )


def test_a_fresh_stream_gives_the_same_batch_at_any_step(config: StreamConfig) -> None:
    running = ClipStream(config)
    for step in range(3):
        running.batch(step)
    assert equal(running.batch(17), ClipStream(config).batch(17))
    copied: ClipStream = pickle.loads(pickle.dumps(running))
    assert equal(running.batch(17), copied.batch(17))
    assert not equal(running.batch(17), running.batch(18))
    assert not equal(running.batch(17), ClipStream(replace(config, seed=4)).batch(17))


def test_shapes_types_and_growing_length(config: StreamConfig) -> None:
    stream = ClipStream(config)
    for step, length in ((0, 3), (10, 4), (20, 5), (1000, 5)):
        batch = stream.batch(step)
        assert batch.frames_BTHWC.shape == (4, length, 48, 80, 3)
        assert batch.masks_BTHW.shape == (4, length, 48, 80)
        assert batch.first_masks_BHW.shape == (4, 48, 80)
        assert batch.frames_BTHWC.dtype == batch.masks_BTHW.dtype == batch.first_masks_BHW.dtype == np.uint8
        assert batch.masks_BTHW.max() == 1


def test_growing_length_reaches_both_ends() -> None:
    lengths = [GrowingLength(5, 12, 800)(step) for step in range(1000)]
    assert lengths[0] == 5
    assert lengths[-1] == 12
    assert np.diff(lengths).min() >= 0
    assert [lengths.count(n) for n in range(5, 12)] == [100] * 7


def test_items_of_a_batch_come_from_different_sequences(config: StreamConfig) -> None:
    stream = ClipStream(replace(config, batch=6))
    seen = set()
    for step in range(10):
        names = stream.batch(step).names
        assert len(set(names)) == 6
        seen |= set(names)
    assert seen == {"ape", "bee", "cat", "dog", "stills/a-red", "stills/b-blue"}


def test_only_the_initializers_mask_is_corrupted(config: StreamConfig) -> None:
    worn, clean = ClipStream(config), ClipStream(replace(config, corrupt_odds=0.0))
    changed = []
    for step in range(5):
        batch, truth = worn.batch(step), clean.batch(step)
        np.testing.assert_array_equal(batch.masks_BTHW, truth.masks_BTHW)
        np.testing.assert_array_equal(truth.first_masks_BHW, truth.masks_BTHW[:, 0])
        assert batch.first_masks_BHW.any(axis=(1, 2)).all()
        changed += (batch.first_masks_BHW != truth.first_masks_BHW).any(axis=(1, 2)).tolist()
    assert 2 < sum(changed) < 18


def test_objects_are_gone_for_a_while_as_often_as_told(config: StreamConfig) -> None:
    sure = replace(config, batch=5, length=GrowingLength(6, 6, 1), absence_odds=1.0)
    stream, never = ClipStream(sure), ClipStream(replace(sure, absence_odds=0.0))
    for step in range(6):
        batch = stream.batch(step)
        assert equal(batch, ClipStream(sure).batch(step))
        seen = batch.masks_BTHW.any(axis=(2, 3))
        assert seen[:, :2].any(axis=1).all() and not seen[:, 2:-1].all(axis=1).any()
        assert len(set(batch.names)) == 5
        # The same clips, but for that.
        whole = never.batch(step)
        assert batch.names[0] == whole.names[0]
        np.testing.assert_array_equal(batch.frames_BTHWC[0, :2], whole.frames_BTHWC[0, :2])
    # Clips of three frames have no middle.
    short = ClipStream(replace(sure, length=GrowingLength(3, 3, 1)))
    assert short.batch(0).masks_BTHW.any()


def test_too_few_sequences_or_no_weight_is_refused(config: StreamConfig) -> None:
    with pytest.raises(ValueError, match="a batch of 7 needs 7 different sequences, but the sources hold 6"):
        ClipStream(replace(config, batch=7))
    with pytest.raises(ValueError, match="a batch of 6 needs 7 different sequences"):
        ClipStream(replace(config, batch=6, absence_odds=0.1))
    with pytest.raises(ValueError, match="weight"):
        ClipStream(replace(config, sources=()))


class Fading:
    """A source whose object is in sight in every `every`-th draw only."""

    name = "fading"

    def __init__(self, every: int) -> None:
        self.every, self.draws = every, 0

    def __len__(self) -> int:
        return 1

    def sequence(self, index: int) -> str:
        return "fading"

    def clip(self, index: int, length: int, size: tuple[int, int], rng: np.random.Generator) -> Clip:
        self.draws += 1
        masks = np.full((length, *size), self.draws % self.every == 0, np.uint8)
        return Clip("fading", np.zeros((length, *size, 3), np.uint8), masks)


class Specks:
    """A source whose object is too small to be found, except in every `every`-th draw."""

    name = "specks"

    def __init__(self, every: int) -> None:
        self.inner = Fading(every=1)
        self.every, self.draws = every, 0

    def __len__(self) -> int:
        return 1

    def sequence(self, index: int) -> str:
        return "specks"

    def clip(self, index: int, length: int, size: tuple[int, int], rng: np.random.Generator) -> Clip:
        self.draws += 1
        if self.draws % self.every:
            raise NotVisibleError("specks/00000.png: too small")
        return self.inner.clip(index, length, size, rng)


def test_an_object_too_small_to_see_is_passed_over() -> None:
    """One such object in a data set must not end a run of days, again and again at the same step."""
    source = Specks(every=3)
    config = StreamConfig(((source, 1.0),), batch=1, seed=0, size=(8, 8), length=GrowingLength(2, 2, 1))
    assert ClipStream(config).batch(0).masks_BTHW[:, 0].all()
    assert source.draws == 3


def test_degenerate_clips_are_drawn_again_but_not_for_ever() -> None:
    source = Fading(every=5)
    config = StreamConfig(((source, 1.0),), batch=1, seed=0, size=(8, 8), length=GrowingLength(2, 2, 1))
    assert ClipStream(config).batch(0).masks_BTHW[:, 0].all()
    assert source.draws == 5
    with pytest.raises(DataError, match="no usable clip in 100 draws from fading"):
        ClipStream(replace(config, sources=((Fading(every=10**6), 1.0),))).batch(0)
