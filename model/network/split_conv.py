"""A convolution in parts, so that what every object shares is convolved once a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


class SplitConv2d(nn.Module):
    """conv(cat(frame, a, b, ...)) = conv_frame(frame) + conv_a(a) + conv_b(b) + ...: one convolution, applied apart.

    `of_frame` gives the frame's part, with the bias; `forward` adds those of an object's own inputs. Sums are also
    what onnxruntime fuses into a convolution, where a concatenation would copy all that goes into it. `frame` 0:
    nothing comes from the frame."""

    def __init__(self, frame: int, own: Sequence[int], outputs: int, kernel: int) -> None:
        super().__init__()
        inputs = (frame, *own) if frame else tuple(own)
        self.parts = nn.ModuleList(
            nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, bias=part == 0)
            for part, channels in enumerate(inputs)
        )
        self.shared = bool(frame)
        whole = nn.init.xavier_uniform_(torch.empty(outputs, sum(inputs), kernel, kernel))
        with torch.no_grad():
            for conv, weight in zip(self.parts, torch.split(whole, list(inputs), dim=1), strict=True):
                cast(nn.Conv2d, conv).weight.copy_(weight)
        nn.init.zeros_(self.bias)

    @property
    def bias(self) -> Tensor:
        bias = self.parts[0].bias
        assert isinstance(bias, Tensor)
        return bias

    def of_frame(self, x: Tensor) -> Tensor:
        """x [B,C,h,w] -> [B,outputs,h,w]."""
        y: Tensor = self.parts[0](x)
        return y

    def forward(self, of_frame: Tensor | None, *own: Tensor) -> Tensor:
        """`of_frame` as above (None if `frame` is 0), own inputs [B,C,h,w] each -> [B,outputs,h,w]."""
        sums = [] if of_frame is None else [of_frame]
        convs = self.parts[1:] if self.shared else self.parts
        sums += [conv(x) for conv, x in zip(convs, own, strict=True)]
        y = sums[0]
        for part in sums[1:]:
            y = y + part
        return y
