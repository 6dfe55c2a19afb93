"""DAVIS folders: the two annotation styles, the split lists, and errors that name the file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_datasets import moving_square, save_davis_sequence, save_grey, save_indexed, save_split, texture

from model.data.davis import DavisDataset
from model.data.read import DataError


def test_2016_annotations_of_0_and_255_are_object_1(davis_2016: Path) -> None:
    dataset = DavisDataset(davis_2016, "train")
    assert [sequence.name for sequence in dataset.sequences] == ["ape", "bee", "cat", "dog"]
    sequence = dataset.sequences[0]
    assert [track.object_id for track in sequence.objects] == [1]
    assert len(sequence) == 6
    np.testing.assert_array_equal(sequence.labels(3), moving_square(3))
    assert sequence.frame(2).shape == (60, 100, 3)
    assert np.abs(sequence.frame(2).astype(int) - texture(2)).mean() < 10, "RGB order, frame 2"


def test_1_bit_annotations_are_object_1(tmp_path: Path) -> None:
    save_davis_sequence(tmp_path, "ape", [moving_square(t, 255) for t in range(2)], indexed=False)
    for path in (tmp_path / "Annotations/480p/ape").glob("*.png"):
        Image.open(path).convert("1").save(path)
    sequence = DavisDataset(tmp_path, None).sequences[0]
    assert [track.object_id for track in sequence.objects] == [1]
    np.testing.assert_array_equal(sequence.labels(1), moving_square(1))


def test_2017_reads_palette_indices_and_drops_void(tmp_path: Path) -> None:
    labels = moving_square(0, 1) + moving_square(0, 3, left=60)
    with_void = labels.copy()
    with_void[:5] = 255
    save_davis_sequence(tmp_path, "pair", [labels, with_void], indexed=True, resolution="Full-Resolution")
    save_split(tmp_path, "2017", "val", ["pair"])
    sequence = DavisDataset(tmp_path, "val").sequences[0]
    assert [track.object_id for track in sequence.objects] == [1, 3]
    np.testing.assert_array_equal(sequence.labels(0), labels)
    np.testing.assert_array_equal(sequence.labels(1), labels)
    np.testing.assert_array_equal(sequence.pair(1, 3)[1], labels == 3)


def test_a_frame_without_objects_stays_empty_in_a_multi_object_video(tmp_path: Path) -> None:
    void_only = np.full((60, 100), 255, np.uint8)
    save_davis_sequence(tmp_path, "gone", [moving_square(0, 2), void_only], indexed=True)
    assert not DavisDataset(tmp_path, None).sequences[0].labels(1).any()


def test_split_lists(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_davis_sequence(tmp_path, name, [moving_square(0)], indexed=True)
    save_split(tmp_path, "2016", "val", ["one"])
    save_split(tmp_path, "2017", "val", ["one", "", "two"])
    pairs = [f"/JPEGImages/480p/two/{t:05d}.jpg /Annotations/480p/two/{t:05d}.png" for t in range(3)]
    save_split(tmp_path, "480p", "train", pairs)

    def names(split: str | None) -> list[str]:
        return [sequence.name for sequence in DavisDataset(tmp_path, split).sequences]

    assert names("val") == ["one", "two"]
    assert names("2016/val") == ["one"]
    assert names("train") == ["two"], "the frame-per-line lists of DAVIS-2016 itself"
    assert names(None) == ["one", "two"]
    with pytest.raises(DataError, match=r"no split 'test'.*2016/val, 2017/val, 480p/train"):
        names("test")


def test_a_grey_annotation_stored_as_rgb_is_read_and_a_coloured_one_refused(davis_2016: Path) -> None:
    path = davis_2016 / "Annotations/480p/ape/00001.png"
    save_grey(path, np.repeat(moving_square(1, 255)[..., None], 3, axis=2))
    sequence = DavisDataset(davis_2016, "train").sequences[0]
    np.testing.assert_array_equal(sequence.labels(1), moving_square(1))
    save_grey(path, moving_square(1, 255)[..., None] * np.array([1, 0, 0], np.uint8))
    with pytest.raises(DataError, match=r"ape/00001\.png: not a label map"):
        sequence.labels(1)


def test_errors_name_the_file(davis_2016: Path) -> None:
    sequence = DavisDataset(davis_2016, "train").sequences[1]
    photo, mask = davis_2016 / "JPEGImages/480p/bee/00002.jpg", davis_2016 / "Annotations/480p/bee/00003.png"
    photo.write_bytes(photo.read_bytes()[:700])
    with pytest.raises(DataError, match=r"bee/00002\.jpg: cannot be read as an image"):
        sequence.frame(2)
    photo.write_bytes(b"")
    with pytest.raises(DataError, match=r"bee/00002\.jpg: cannot be read as an image"):
        sequence.frame(2)
    mask.unlink()
    with pytest.raises(DataError, match=r"bee/00003\.png: no such file"):
        sequence.labels(3)
    save_indexed(mask, np.ones((30, 50), np.uint8))
    with pytest.raises(DataError, match=r"bee/00003\.png: size 50 x 30, but its frame .*00003\.jpg has 100 x 60"):
        sequence.pair(3, 1)
    (davis_2016 / "Annotations/480p/bee/00000.png").unlink()
    with pytest.raises(DataError, match=r"bee/00000\.png: no such file"):
        DavisDataset(davis_2016, "train")


def test_a_first_annotation_without_object_is_an_error(tmp_path: Path) -> None:
    save_davis_sequence(tmp_path, "blank", [np.zeros((60, 100), np.uint8)], indexed=True)
    with pytest.raises(DataError, match=r"blank/00000\.png: no object"):
        DavisDataset(tmp_path, None)


def test_not_a_davis_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a DAVIS folder"):
        DavisDataset(tmp_path, "train")
    save_split(tmp_path, "480p", "train", ["ghost"])
    (tmp_path / "JPEGImages/480p").mkdir(parents=True)
    with pytest.raises(DataError, match=r"ghost: no \.jpg frames"):
        DavisDataset(tmp_path, "train")
