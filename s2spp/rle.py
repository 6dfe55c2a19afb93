"""COCO's compressed run-length encoding of binary masks, as pycocotools reads and writes it.

Runs alternate, background first, column by column. From the fourth on a run is stored as its difference to the one two
before it, in 5-bit groups, lowest first, one character for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BITS, _MORE, _SIGN, _FIRST = 5, 0x20, 0x10, 48


def encode(mask_HW: NDArray[np.bool_] | NDArray[np.uint8]) -> str:
    """Mask [H,W] (0 is background) -> the `counts` of a COCO object; its `size` is [H, W]."""
    pixels = np.concatenate([[False], np.asarray(mask_HW, bool).ravel(order="F")])
    turns = np.flatnonzero(pixels[1:] != pixels[:-1])
    counts = np.diff(np.concatenate([[0], turns, [mask_HW.size]]))
    values = counts.copy()
    values[3:] -= counts[1:-2]
    groups = []
    more = np.ones(len(values), bool)
    left = values
    while more.any():
        low, left = left & 0x1F, left >> _BITS
        ended = np.where(low & _SIGN > 0, left == -1, left == 0)
        groups.append(np.where(more, low + np.where(ended, 0, _MORE) + _FIRST, 0))
        more = more & ~ended
    text = np.stack(groups, axis=1).ravel()
    return text[text > 0].astype(np.uint8).tobytes().decode("ascii")


def decode(counts: str, height: int, width: int) -> NDArray[np.bool_]:
    """`counts` of a COCO object -> mask [H,W]. Raises ValueError for what is no encoding of that size."""
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - _FIRST
    if len(codes) == 0 or codes.min() < 0 or codes.max() >= 2 * _MORE or codes[-1] & _MORE:
        raise ValueError("not a compressed COCO run-length encoding")
    starts = np.flatnonzero(np.concatenate([[True], (codes & _MORE) == 0])[:-1])
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    if place.max() > 11:
        raise ValueError("a run of more pixels than there can be")
    values = np.add.reduceat((codes & 0x1F) << (_BITS * place), starts)
    ends = np.append(starts[1:], len(codes)) - 1
    values -= np.where(codes[ends] & _SIGN > 0, np.int64(1) << (_BITS * (place[ends] + 1)), 0)
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    # Each by itself first: a sum beyond 64 bits would come round to what it should be.
    if values.min() < 0 or values.max() > height * width or values.sum() != height * width:
        raise ValueError(f"the runs have {values.sum()} pixels, a mask of {height} x {width} has {height * width}")
    inside = np.repeat(np.arange(len(values)) % 2 == 1, values)
    return inside.reshape(width, height).T.copy()
