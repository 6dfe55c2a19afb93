from __future__ import annotations

import numpy as np
import pytest

from s2spp.overlay import PALETTE, overlay


def test_the_palette_is_that_of_davis() -> None:
    """The first colours as they stand in the header of every DAVIS-2017 annotation."""
    first = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    first += [(128, 128, 128), (64, 0, 0), (191 + 1, 0, 0)]
    assert PALETTE[:10].tolist() == [list(colour) for colour in first]
    assert PALETTE[255].tolist() == [224, 224, 192]
    assert len(np.unique(PALETTE, axis=0)) == 256
    assert PALETTE.dtype == np.uint8


def test_objects_get_their_colour_and_the_background_stays() -> None:
    frame = np.full((40, 60, 3), 100, np.uint8)
    labels = np.zeros((40, 60), np.uint8)
    labels[10:20, 10:20], labels[10:20, 30:40] = 1, 2
    drawn = overlay(frame, labels, alpha=0.25, outline=False)
    assert (drawn[labels == 0] == 100).all()
    assert (drawn[labels == 1] == (107, 75, 75)).all()
    assert (drawn[labels == 2] == (75, 107, 75)).all()
    assert (frame == 100).all()


def test_the_outline_is_inside_and_parts_touching_objects() -> None:
    frame = np.zeros((40, 60, 3), np.uint8)
    labels = np.zeros((40, 60), np.uint8)
    labels[10:20, 10:20], labels[10:20, 20:30] = 1, 2
    line = (overlay(frame, labels, alpha=1.0) == 255).all(axis=2)
    assert not line[labels == 0].any()
    assert line[10, 10:30].all() and line[10:20, 10].all()
    assert line[15, 19] and line[15, 20]
    assert not line[12:18, 12:18].any()


def test_alpha_runs_from_the_frame_to_the_colour() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    labels = np.full((8, 8), 5, np.uint8)
    assert np.array_equal(overlay(frame, labels, alpha=0.0, outline=False), frame)
    assert (overlay(frame, labels, alpha=1.0, outline=False) == PALETTE[5]).all()


def test_wrong_sizes_and_alpha_are_refused() -> None:
    frame = np.zeros((8, 10, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\(10, 8\).*\(8, 10, 3\)"):
        overlay(frame, np.zeros((10, 8), np.uint8))
    with pytest.raises(ValueError, match="between 0 and 1"):
        overlay(frame, np.zeros((8, 10), np.uint8), alpha=50)
