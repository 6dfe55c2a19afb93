"""Batches as the trainer sees them."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import tiny_network, tiny_train
from torch import Tensor

from model.data.read import DataError
from model.training.batches import TensorBatch, batches
from model.training.config import SourceConfig
from model.training.distance import distance_classes
from s2spp.geometry import mask_to_model


def drawn(photos: Path, first: int = 0, rank: int = 0, workers: int = 0) -> dict[int, TensorBatch]:
    stream = batches(tiny_train((2, 2)), tiny_network(), photos, first, rank, workers)
    return {step: batch for step, _, batch in stream}


def same(one: TensorBatch, other: TensorBatch) -> bool:
    assert one.distances is not None and other.distances is not None
    pairs: list[tuple[Tensor, Tensor]] = [
        (one.frames, other.frames),
        (one.first_masks, other.first_masks),
        (one.masks, other.masks),
        (one.distances, other.distances),
    ]
    return all(torch.equal(a, b) for a, b in pairs)


def test_shapes_and_types_are_those_that_are_stated(photos: Path) -> None:
    batch = drawn(photos)[1]
    # The second half of the first stage: its length has grown from 3 to 4.
    assert batch.frames.shape == (2, 4, 3, 64, 96) and batch.frames.dtype == torch.uint8
    assert batch.first_masks.shape == (2, 1, 64, 96) and batch.masks.shape == (2, 3, 64, 96)
    assert batch.distances is not None and batch.distances.shape == (2, 3, 32, 48)
    target = distance_classes(mask_to_model(batch.masks[1, 2].numpy(), (32, 48)), tiny_network().distance)  # type: ignore[arg-type]
    np.testing.assert_array_equal(batch.distances[1, 2].numpy(), target)


def test_a_batch_depends_on_its_step_alone_not_on_where_the_run_began(photos: Path) -> None:
    whole = drawn(photos)
    assert list(whole) == [0, 1, 2, 3]
    for first in (1, 2, 3):
        part = drawn(photos, first, workers=first % 2)
        assert list(part) == list(range(first, 4))
        assert all(same(part[step], whole[step]) for step in part)


def test_every_rank_has_its_own_clips(photos: Path) -> None:
    ours, theirs = drawn(photos, rank=0), drawn(photos, rank=1)
    assert not any(same(ours[step], theirs[step]) for step in ours)


def test_a_source_is_opened_once_for_all_stages(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    really = SourceConfig.open
    monkeypatch.setattr(SourceConfig, "open", lambda self, root: opened.append(self.path) or really(self, root))
    drawn(photos)
    assert opened == ["stills/shapes"]


def test_a_missing_data_set_of_a_later_stage_is_found_before_the_first_step(photos: Path) -> None:
    """And not hours later, when that stage begins."""
    config = tiny_train((2, 2))
    lacking = replace(config.stages[1], sources=(SourceConfig("davis", "davis2016", 1.0, "train"),))
    stages = (config.stages[0], lacking)
    with pytest.raises(DataError, match=r"davis2016.*not a DAVIS folder"):
        next(iter(batches(replace(config, stages=stages), tiny_network(), photos, 0, 0, 0)))
    # A stage that is over needs nothing any more.
    over = replace(config, stages=stages[::-1])
    assert next(iter(batches(over, tiny_network(), photos, 2, 0, 0)))[0] == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named_in_one_line_by_a_loader_too(photos: Path, tmp_path: Path, workers: int) -> None:
    shutil.copytree(photos / "stills", tmp_path / "stills")
    for path in (tmp_path / "stills" / "shapes" / "images").iterdir():
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError) as caught:
        drawn(tmp_path, workers=workers)
    said = str(caught.value)
    assert "cannot be read as an image" in said and said.startswith(str(tmp_path)) and "\n" not in said


def test_a_network_without_the_task_gets_no_distances(photos: Path) -> None:
    plain = replace(tiny_network(), distance=None)
    _, _, batch = next(iter(batches(tiny_train(), plain, photos, 0, 0, 0)))
    assert batch.distances is None
    moved = batch.to(torch.device("meta"))
    assert moved.distances is None and moved.frames.device.type == "meta"


def test_loaders_start_in_a_process_whose_opencv_has_worked_in_parallel(photos: Path) -> None:
    """In a process of its own, which a deadlock leaves hanging: a second training of one process, as in `ablate`."""
    program = f"""
import sys
import subprocess
import sys
from pathlib import Path
import cv2, numpy as np
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_batches import drawn
cv2.setNumThreads(4)
cv2.warpAffine(np.zeros((2000, 2000, 3), np.float32), np.eye(3)[:2], (2000, 2000))
assert len(drawn(Path({str(photos)!r}), workers=1)) == 4
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
