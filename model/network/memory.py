"""Memories: what a level of the pyramid carries from frame to frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import Cell

# ReLU cells may grow without end over a long stream; float16 state must not overflow. tanh cells never come near.
CELL_BOUND = 64.0


class ConvLSTM(nn.Module):
    """ConvLSTM (eq. 3; Shi et al. 2015). `step(x, h, c) -> (h, c)`; the cell state is bounded for ever-long streams."""

    def __init__(self, inputs: int, channels: int, kernel: int, cell: Cell) -> None:
        super().__init__()
        self.cell = cell
        self.gates = nn.Conv2d(inputs + channels, 4 * channels, kernel, padding=kernel // 2)
        assert self.gates.bias is not None
        nn.init.xavier_uniform_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)
        # Remember at first: an untrained forget gate of one half would lose the first mask within a few frames.
        nn.init.constant_(self.gates.bias[channels : 2 * channels], 1.0)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        candidate = {"tanh": torch.tanh, "relu": F.relu, "reference": torch.sigmoid}[self.cell](g)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * candidate
        c = c.clamp(-CELL_BOUND, CELL_BOUND)
        out = torch.tanh(c) if self.cell == "tanh" else F.relu(c)
        return torch.sigmoid(o) * out, c


class MaskGuidance(nn.Module):
    """Instead of a ConvLSTM: features and the previous mask, no state of its own (section III-A)."""

    def __init__(self, inputs: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, kernel, padding=kernel // 2)
        nn.init.xavier_uniform_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))
