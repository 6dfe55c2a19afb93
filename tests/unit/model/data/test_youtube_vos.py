"""YouTube-VOS folders: late objects, sparse annotation, categories, errors that name the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_datasets import moving_square, save_indexed, save_photo, texture

from model.data.augment import AugmentConfig
from model.data.read import DataError
from model.data.video_source import VideoConfig, VideoSource
from model.data.youtube_vos import YoutubeVosDataset

STILL = AugmentConfig(flip_odds=0, affine_odds=0, colour_odds=0)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """One video of 21 frames, every fifth annotated; object 2 appears at frame 10."""
    meta: dict[str, Any] = {
        "videos": {
            "0a1b": {
                "objects": {
                    "2": {"category": "skateboard", "frames": ["00010", "00015", "00020"]},
                    "1": {"category": "person", "frames": ["00000", "00005", "00010", "00015", "00020"]},
                }
            }
        }
    }
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    for t in range(21):
        save_photo(tmp_path / f"JPEGImages/0a1b/{t:05d}.jpg", texture(t))
    for t in range(0, 21, 5):
        labels = moving_square(t // 5)
        if t >= 10:
            labels = labels + moving_square(t // 5, 2, left=60)
        save_indexed(tmp_path / f"Annotations/0a1b/{t:05d}.png", labels)
    return tmp_path


def test_objects_frames_and_categories(videos: Path) -> None:
    (sequence,) = YoutubeVosDataset(videos).sequences
    assert sequence.name == "0a1b"
    assert len(sequence) == 21
    assert [track.object_id for track in sequence.objects] == [1, 2]
    assert [track.category for track in sequence.objects] == ["person", "skateboard"]
    assert sequence.objects[1].frames == (10, 15, 20)
    assert sequence.annotated == (0, 5, 10, 15, 20)
    np.testing.assert_array_equal(sequence.labels(5), moving_square(1))
    with pytest.raises(DataError, match=r"00003\.jpg: this frame has no annotation"):
        sequence.labels(3)


def test_clips_of_a_late_object_start_where_it_is_visible(videos: Path) -> None:
    source = VideoSource(
        "ytvos", YoutubeVosDataset(videos).sequences, VideoConfig(zoom_odds=0, augment=STILL, dolly_odds=0)
    )
    starts = set()
    for seed in range(40):
        clip = source.clip(1, 3, (60, 100), np.random.default_rng(seed))
        assert clip.masks_THW[0].sum() == 20 * 20
        starts.add(int(np.flatnonzero(clip.masks_THW[0].any(axis=0))[0]))
    assert starts == {60 + 2 * k for k in (2, 3, 4)}, "only frames 10, 15 and 20 show object 2"


def test_validation_split_has_only_first_annotations(videos: Path) -> None:
    for t in (5, 15, 20):
        (videos / f"Annotations/0a1b/{t:05d}.png").unlink()
    (sequence,) = YoutubeVosDataset(videos).sequences
    assert sequence.annotated == (0, 10)


def test_errors_name_the_file(videos: Path) -> None:
    (videos / "Annotations/0a1b/00010.png").unlink()
    with pytest.raises(DataError, match=r"00010\.png: object 2 first appears here"):
        YoutubeVosDataset(videos)
    (videos / "JPEGImages/0a1b/00015.jpg").unlink()
    with pytest.raises(DataError, match=r"00015\.jpg: object 1 is listed here"):
        YoutubeVosDataset(videos)
    (videos / "meta.json").write_text('{"videos": {"0a1b": {"objects": {"1": {"frames": []}}}}}')
    with pytest.raises(DataError, match=r"meta\.json: not in the YouTube-VOS layout"):
        YoutubeVosDataset(videos)
    (videos / "meta.json").write_text("{")
    with pytest.raises(DataError, match=r"meta\.json: cannot be read"):
        YoutubeVosDataset(videos)
