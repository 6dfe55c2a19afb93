"""COCO's run-length encoding, against pycocotools itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from s2spp import rle

masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def theirs(mask: NDArray[np.bool_]) -> str:
    counts = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert isinstance(counts, bytes)
    return counts.decode()


@given(masks)
def test_it_is_what_pycocotools_writes_and_it_comes_back(mask: NDArray[np.bool_]) -> None:
    counts = rle.encode(mask)
    assert counts == theirs(mask)
    np.testing.assert_array_equal(rle.decode(counts, *mask.shape), mask)


@pytest.mark.parametrize("shape", [(480, 854), (2160, 3840), (1, 1), (1, 70_000), (70_000, 1)])
@pytest.mark.parametrize("fill", ["empty", "full", "a few long runs"])
def test_long_runs(shape: tuple[int, int], fill: str) -> None:
    mask = np.full(shape, fill == "full")
    if fill == "a few long runs":
        mask[shape[0] // 3 :, shape[1] // 2 :] = True
    counts = rle.encode(mask)
    assert counts == theirs(mask)
    np.testing.assert_array_equal(rle.decode(counts, *shape), mask)


@pytest.mark.parametrize(
    "counts",
    ["", "é", "0", "P", "o" * 40, "~~", "11111111", "\x00", "X" * 13 + "1", "é" * 7, ("o" * 11 + "?") * 32 + "_1"],
)
def test_what_is_no_encoding_is_refused(counts: str) -> None:
    with pytest.raises(ValueError, match=r"runs? |not a compressed|ascii"):
        rle.decode(counts, 5, 7)


@given(st.text(max_size=30), st.integers(1, 9), st.integers(1, 9))
def test_any_text_is_a_mask_or_is_refused(counts: str, height: int, width: int) -> None:
    try:
        mask = rle.decode(counts, height, width)
    except ValueError:
        return
    assert mask.shape == (height, width)
