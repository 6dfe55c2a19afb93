"""How often it is right that an object is visible, or that it is not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Visibility:
    """Objects in frames, each after the frame that gives it. `absent`: the truth has no pixel of it; of these,
    `absent_found` were said to be invisible, and `absent_empty` had no pixel in the mask either. `there`: the truth
    has some; of these, `there_found` were said to be visible, and `there_drawn` had pixels in the mask."""

    absent: int = 0
    absent_found: int = 0
    absent_empty: int = 0
    there: int = 0
    there_found: int = 0
    there_drawn: int = 0

    @classmethod
    def of(
        cls,
        object_ids: Collection[int],
        visible: Collection[int],
        labels: NDArray[np.uint8],
        truth: NDArray[np.uint8],
    ) -> Self:
        """Of the objects `object_ids` of one frame: those that are said to be `visible`, and the label maps [H,W]."""
        drawn, shown = (np.bincount(map_.ravel(), minlength=256) > 0 for map_ in (labels, truth))
        absent = [one for one in object_ids if not shown[one]]
        there = [one for one in object_ids if shown[one]]
        return cls(
            absent=len(absent),
            absent_found=sum(one not in visible for one in absent),
            absent_empty=sum(not drawn[one] for one in absent),
            there=len(there),
            there_found=sum(one in visible for one in there),
            there_drawn=sum(bool(drawn[one]) for one in there),
        )

    def __add__(self, other: Visibility) -> Visibility:
        return Visibility(
            self.absent + other.absent,
            self.absent_found + other.absent_found,
            self.absent_empty + other.absent_empty,
            self.there + other.there,
            self.there_found + other.there_found,
            self.there_drawn + other.there_drawn,
        )
