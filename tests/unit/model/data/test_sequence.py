"""A video played longer, and in another shape."""

from pathlib import Path

import numpy as np
import pytest
from tiny_datasets import moving_square, save_davis_sequence

from model.data.davis import DavisDataset
from model.data.sequence import Sequence


@pytest.fixture
def video(tmp_path: Path) -> Sequence:
    save_davis_sequence(tmp_path, "one", [moving_square(t, left=0) for t in range(4)], indexed=True)
    return DavisDataset(tmp_path, None).sequences[0]


def test_looped_goes_forth_and_back_without_a_jump(video: Sequence) -> None:
    looped = video.looped(9)
    assert [path.stem for path in looped.frame_paths] == [f"{i:05d}" for i in (0, 1, 2, 3, 2, 1, 0, 1, 2)]
    assert len(looped) == 9 and looped.annotated == tuple(range(9))
    np.testing.assert_array_equal(looped.labels(5), video.labels(1))


@pytest.mark.parametrize(("aspect", "shape"), [(1.0, (60, 60)), (9 / 16, (60, 34)), (4.0, (25, 100))])
def test_cropped_has_the_shape_and_holds_the_object(video: Sequence, aspect: float, shape: tuple[int, int]) -> None:
    cropped = video.cropped(aspect)
    assert cropped.labels(0).shape == shape and cropped.frame(0).shape == (*shape, 3)
    assert cropped.labels(0).sum() == video.labels(0).sum()
    top, bottom, left, right = cropped.window or (0, 0, 0, 0)
    np.testing.assert_array_equal(cropped.frame(2), video.frame(2)[top:bottom, left:right])
