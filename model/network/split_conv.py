"""A convolution in parts, so that what every object shares is convolved once a frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SplitConv2d(nn.Module):
    """conv(cat(frame, a, b, ...)) = conv_frame(frame) + conv_a(a) + conv_b(b) + ...: the same weights, applied apart.

    `of_frame` gives the frame's part, with the bias; `forward` adds those of an object's own inputs. Sums are also
    what onnxruntime fuses into a convolution, where a concatenation would copy all that goes into it. `frame` 0:
    nothing comes from the frame."""

    def __init__(self, frame: int, own: Sequence[int], outputs: int, kernel: int) -> None:
        super().__init__()
        self.frame = frame
        self.own = tuple(own)
        self.padding = kernel // 2
        # One tensor, so that it starts (and can be loaded) as the one convolution that it is.
        self.weight = nn.Parameter(torch.empty(outputs, frame + sum(own), kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight)

    def of_frame(self, x: Tensor) -> Tensor:
        """x [B,C,h,w] -> [B,outputs,h,w]."""
        return F.conv2d(x, self.weight[:, : self.frame], self.bias, padding=self.padding)

    def forward(self, of_frame: Tensor | None, *own: Tensor) -> Tensor:
        """`of_frame` as above (None if `frame` is 0), own inputs [B,C,h,w] each -> [B,outputs,h,w]."""
        start = self.frame
        y = of_frame
        for x, channels in zip(own, self.own, strict=True):
            weight = self.weight[:, start : start + channels]
            part = F.conv2d(x, weight, self.bias if y is None else None, padding=self.padding)
            y = part if y is None else y + part
            start += channels
        if y is None:
            raise ValueError("a convolution of nothing")
        return y
