"""What training opens: never the videos that choose between models."""

from pathlib import Path

import pytest
import tiny_videos

from model.data.davis import TUNE, DavisDataset
from model.data.read import DataError
from model.training.config import TRAIN_RECIPES, SourceConfig


def names(root: Path, **settings: object) -> set[str]:
    source = SourceConfig("davis", "davis2016", 1.0, **settings).open(root)  # type: ignore[arg-type]
    return {source.sequence(index) for index in range(len(source))}


def test_the_tune_videos_are_never_trained_on(tmp_path: Path) -> None:
    """DAVIS-2016's own list of training videos holds them."""
    tiny_videos.write_davis(tmp_path / "davis2016", "train", ("bear", "bus", *TUNE))
    assert names(tmp_path, split="train") == names(tmp_path) == {"bear", "bus"}
    assert names(tmp_path, split="train", exclude=("bus",)) == {"bear"}
    with pytest.raises(DataError, match="no annotated object"):
        names(tmp_path, split="tune")


def test_the_tune_split_needs_no_list_of_its_own(tmp_path: Path) -> None:
    root = tiny_videos.write_davis(tmp_path / "davis2016", "train", ("bear", *TUNE))
    assert tuple(video.name for video in DavisDataset(root, "tune").sequences) == TUNE
    # A list that is there counts.
    tiny_videos.write_davis(root, "tune", ("cat",))
    assert [video.name for video in DavisDataset(root, "tune").sequences] == ["cat"]


@pytest.mark.parametrize("name", TRAIN_RECIPES)
def test_the_camera_moves_where_the_recipe_says_so(name: str) -> None:
    videos = [s for stage in TRAIN_RECIPES[name]().stages for s in stage.sources if s.kind != "stills"]
    assert {source.dolly_odds for source in videos} <= ({0.0} if name == "paper_gpu" else {0.3})
