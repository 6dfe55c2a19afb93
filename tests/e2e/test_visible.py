"""Whether an object is visible, on real video in which it is gone for a while. (Area alone does not say: the tracker
leaves some pixels behind.)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from model.data.davis import DavisDataset
from model.data.sequence import Sequence
from s2spp.evaluation import bundle_tracker, predict, score
from s2spp.inprocess import InProcess
from s2spp.visibility import Visibility
from service.runtime import suitable
from service.runtime.choose import INT8


@pytest.fixture(scope="module")
def engine() -> Iterator[InProcess]:
    """With the bundle that this machine serves: int8, or float where 8-bit sums overflow."""
    name, _ = suitable("cpu")
    with InProcess(name) as engine:
        yield engine


def _counted(engine: InProcess, video: Sequence) -> Visibility:
    scored = score(video, predict(video, bundle_tracker(engine)))
    assert scored is not None and scored.visible is not None
    return scored.visible


@pytest.mark.data
def test_a_skater_who_leaves_the_picture(engine: InProcess, tune_split: dict[str, Sequence]) -> None:
    """In a portrait window the skater of `rollerblade` is gone from the 12th frame on; patches of mask are not."""
    found = _counted(engine, tune_split["rollerblade"].cropped(9 / 16))
    assert (found.absent, found.there) == (23, 11)
    assert found.there_found == found.there
    share = 0.9 if engine.model == INT8 else 0.85  # float: 20 of 23
    assert found.absent_found >= share * found.absent, f"pixels alone would have said {found.absent_empty}"


@pytest.mark.data
def test_a_rider_behind_a_mound(engine: InProcess, davis: Path) -> None:
    """The rider of `bmx-bumps` is hidden in frames 60 and 62 to 74, and comes out again."""
    (video,) = (video for video in DavisDataset(davis, "train").sequences if video.name == "bmx-bumps")
    found = _counted(engine, video)
    assert (found.absent, found.there) == (14, 75)
    assert found.absent_found == found.absent
    # In some frames before and after them there is no more to see than a wheel.
    assert found.there_found >= 0.9 * found.there
