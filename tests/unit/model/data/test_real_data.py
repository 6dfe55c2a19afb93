"""The readers and sources on the real datasets, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest

from model.data.davis import DavisDataset
from model.data.stills import StillSource
from model.data.stream import ClipStream, GrowingLength, StreamConfig
from model.data.video_source import VideoSource

pytestmark = pytest.mark.data


def test_davis_splits(real_data: Path) -> None:
    train = DavisDataset(real_data / "davis2016", "train")
    tune = DavisDataset(real_data / "davis2016", "tune")
    assert (len(train.sequences), sum(map(len, train.sequences))) == (26, 1820)
    assert (len(tune.sequences), sum(map(len, tune.sequences))) == (4, 259)
    assert not {s.name for s in train.sequences} & {s.name for s in tune.sequences}
    for sequence in (*train.sequences, *tune.sequences):
        frame, mask = sequence.pair(0, 1)
        assert [track.object_id for track in sequence.objects] == [1]
        assert frame.shape == (*mask.shape, 3)
        assert 0 < mask.mean() < 0.6


def test_a_folder_without_split_lists(real_data: Path) -> None:
    (chair,) = DavisDataset(real_data / "pumavos", None).sequences
    assert (chair.name, len(chair), len(chair.objects)) == ("chair", 60, 1)
    assert chair.labels(59).max() == 1


def test_a_mixed_stream(real_data: Path) -> None:
    sources = (
        (VideoSource("davis2016", DavisDataset(real_data / "davis2016", "train").sequences), 1.0),
        (StillSource(real_data / "stills" / "sod", real_data / "backgrounds"), 1.0),
    )
    stream = ClipStream(StreamConfig(sources, batch=4, seed=0, size=(80, 144), length=GrowingLength(4, 8, 100)))
    for step in range(3):
        batch = stream.batch(step)
        assert len(set(batch.names)) == 4
        assert batch.frames_BTHWC.std(axis=(1, 2, 3, 4)).min() > 5, "pictures, not blanks"
        shares = batch.masks_BTHW[:, 0].mean(axis=(1, 2))
        assert np.all((shares > 0.0005) & (shares < 0.9))
