"""Which objects of a YouTube-VOS split are of seen categories, and which videos have a truth at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.data.davis import DavisDataset
from model.data.read import DataError
from model.data.youtube_vos import YoutubeVosDataset
from s2spp.commands.evaluate import evaluate
from s2spp.evaluation import scorable
from s2spp.seen_unseen import seen_objects, train_meta_beside
from tests.fakes.youtube_vos import GREY, Square, Video, write_meta, write_split

AT = (10, 20)
CAT, OWL = Square("cat", [AT] * 4), Square("owl", [None, (40, 20), (40, 20), (40, 20)])
VIDEOS = {"0a": Video(GREY, {1: CAT, 2: OWL})}


def _davis(root: Path, frames: int, maps: int) -> Path:
    """One video `a` of a square, with the first `maps` of its label maps."""
    for index in range(frames):
        for kind, suffix, shown in (("JPEGImages", "jpg", True), ("Annotations", "png", index < maps)):
            path = root / kind / "480p" / "a" / f"{index:05d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((64, 96), np.uint8)
            pixels[20:40, 10:30] = 1
            if shown:
                Image.fromarray(pixels).save(path)
    return root


def test_seen_are_the_categories_of_the_train_split(tmp_path: Path) -> None:
    dataset = YoutubeVosDataset(write_split(tmp_path / "valid", VIDEOS))
    assert train_meta_beside(dataset) is None
    meta = write_meta(tmp_path / "train" / "meta.json", {"t": Video(GREY, {1: CAT})})
    assert train_meta_beside(dataset) == meta
    assert seen_objects(dataset, meta).objects == {("0a", 1): True, ("0a", 2): False}


def test_the_train_split_has_no_train_split_beside_it(tmp_path: Path) -> None:
    split = write_split(tmp_path / "train", VIDEOS)
    assert train_meta_beside(YoutubeVosDataset(split)) is None
    (tmp_path / "again").symlink_to(split)
    assert train_meta_beside(YoutubeVosDataset(tmp_path / "again")) is None


def test_a_linked_split_has_its_neighbours_where_the_link_lies(tmp_path: Path) -> None:
    write_split(tmp_path / "disk" / "valid", VIDEOS)
    meta = write_meta(tmp_path / "data" / "train" / "meta.json", VIDEOS)
    (tmp_path / "data" / "valid").symlink_to(tmp_path / "disk" / "valid")
    assert train_meta_beside(YoutubeVosDataset(tmp_path / "data" / "valid")) == meta


def test_errors_name_the_file(tmp_path: Path) -> None:
    dataset = YoutubeVosDataset(write_split(tmp_path / "valid", VIDEOS))
    meta = tmp_path / "meta.json"
    with pytest.raises(DataError, match=r"meta\.json: cannot be read"):
        seen_objects(dataset, meta)
    meta.write_text('{"videos": {"t": {"objects": {"1": {"frames": ["00000"]}}}}}')
    with pytest.raises(DataError, match=r"meta\.json: not a YouTube-VOS meta\.json with categories"):
        seen_objects(dataset, meta)
    with pytest.raises(DataError, match="lists every category of"):
        seen_objects(dataset, write_meta(meta, VIDEOS))
    with pytest.raises(DataError, match="lists no category of"):
        seen_objects(dataset, write_meta(meta, {"t": Video(GREY, {1: Square("fox", [AT])})}))

    nameless = {"0a": Video(GREY, {1: CAT, 2: Square(None, OWL.corners)})}
    with pytest.raises(DataError, match=r"valid2/meta\.json: object 2 of 0a has no category"):
        seen_objects(YoutubeVosDataset(write_split(tmp_path / "valid2", nameless)), write_meta(meta, VIDEOS))


def test_only_objects_that_can_be_scored_make_a_kind(tmp_path: Path) -> None:
    """An owl that enters in the last frame but one has no frame to count."""
    videos = {"0a": Video(GREY, {1: CAT, 2: Square("owl", [None, None, AT, AT])})}
    dataset = YoutubeVosDataset(write_split(tmp_path / "valid", videos))
    assert [track.object_id for track in scorable(dataset.sequences[0])] == [1]
    with pytest.raises(DataError, match="lists every category of"):
        seen_objects(dataset, write_meta(tmp_path / "meta.json", {"t": Video(GREY, {1: CAT})}))


@pytest.mark.parametrize(("frames", "maps", "some"), [(4, 4, True), (3, 3, True), (2, 2, False), (4, 1, False)])
def test_a_davis_video_with_its_first_mask_alone_has_no_truth(
    tmp_path: Path, frames: int, maps: int, some: bool
) -> None:
    (sequence,) = DavisDataset(_davis(tmp_path, frames, maps), None).sequences
    assert bool(scorable(sequence)) is some


def test_evaluate_refuses_what_it_cannot_score(tmp_path: Path) -> None:
    davis = _davis(tmp_path / "davis", 4, 4)
    with pytest.raises(ValueError, match="--train-meta goes with a YouTube-VOS folder"):
        evaluate(davis, train_meta=write_meta(tmp_path / "meta.json", VIDEOS))
    with pytest.raises(ValueError, match="no ground truth"):
        evaluate(_davis(tmp_path / "test-dev", 4, 1))
