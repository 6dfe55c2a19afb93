"""The recurrent state as one named type. Names are those of the exported contract."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class RecurrentState(NamedTuple):
    """`changing`: replaced by every step; `constant`: written by the initializer only. Each tensor [B,C,h,w].
    (A named tuple, since training wrappers walk through what a forward pass returns.)"""

    changing: dict[str, Tensor]
    constant: dict[str, Tensor]
