"""Memories: what a level of the pyramid carries from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import Cell
from model.network.split_conv import SplitConv2d

# ReLU cells may grow without end over a long stream, and float16 state must not overflow.
CELL_BOUND = 64.0


_CANDIDATE: dict[Cell, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "reference": torch.sigmoid,
}


class ConvLSTM(nn.Module):
    """ConvLSTM (eq. 3; Shi et al. 2015): (x, h, c) -> (h, c). The cell state is bounded, for long streams.

    x comes in parts: `frame` channels that all objects of a frame share, and each object's `own`. `hidden`: the gates
    see so many channels that a 1x1 convolution makes of h; 0, h itself."""

    def __init__(self, frame: int, own: Sequence[int], channels: int, kernel: int, cell: Cell, hidden: int = 0) -> None:
        super().__init__()
        self.cell = cell
        self.narrow = nn.Conv2d(channels, hidden, 1, bias=False) if hidden else None
        if self.narrow is not None:
            nn.init.xavier_uniform_(self.narrow.weight)
        self.gates = SplitConv2d(frame, (*own, hidden or channels), 4 * channels, kernel)
        # Remember at first: a forget gate of one half would lose the first mask within a few frames.
        nn.init.constant_(self.gates.bias[channels : 2 * channels], 1.0)

    def of_frame(self, features: Tensor) -> Tensor:
        return self.gates.of_frame(features)

    def forward(self, of_frame: Tensor | None, own: Sequence[Tensor], h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        seen = h if self.narrow is None else self.narrow(h)
        i, f, o, g = self.gates(of_frame, *own, seen).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * _CANDIDATE[self.cell](g)
        c = c.clamp(-CELL_BOUND, CELL_BOUND)
        out = torch.tanh(c) if self.cell == "tanh" else F.relu(c)
        return torch.sigmoid(o) * out, c


class MaskGuidance(nn.Module):
    """Instead of a ConvLSTM: features and the previous mask, no state of its own (section III-A)."""

    def __init__(self, frame: int, own: Sequence[int], channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = SplitConv2d(frame, own, channels, kernel)

    def of_frame(self, features: Tensor) -> Tensor:
        return self.conv.of_frame(features)

    def forward(self, of_frame: Tensor | None, own: Sequence[Tensor]) -> Tensor:
        return F.relu(self.conv(of_frame, *own))
