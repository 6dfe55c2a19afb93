"""Neck: the encoder's features fused from coarse to fine, before any object is looked at."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import NeckConfig
from model.network.encoders import xavier_conv

STRIDES = (16, 8, 4)


class Neck(nn.Module):
    """Beside the encoder's features of strides 16, 8 and 4, which were learned from many more pictures: the same fused
    with the up-sampled coarser ones (as in a feature pyramid, Lin et al. 2017); stride 4 also takes in the detail of
    stride 2, and stride 32 stays as it is.

    `coarse_first`: cat(up-sampled, own) is convolved in two parts, one of them before it is up-sampled. What is
    up-sampled is smooth, so that little is lost: fitted by least squares to a trained neck of the other form, the sums
    were 6 to 8 % off, before any training.

    Everything here is done once a frame: what it does, no object has to pay for again."""

    def __init__(self, encoder: dict[int, int], config: NeckConfig) -> None:
        super().__init__()
        fused = {32: encoder[32]} | dict(zip(STRIDES, config.channels, strict=True))
        self.channels = {stride: fused[stride] + (encoder[stride] if stride != 32 else 0) for stride in fused}
        self.detail = nn.Conv2d(encoder[2], encoder[4], 2, stride=2)
        self.coarse = nn.ModuleDict()
        self.fuse = nn.ModuleDict()
        self.deepen = nn.ModuleDict()
        for stride, depth in zip(STRIDES, config.depth, strict=True):
            outputs = fused[stride]
            coarse, own = fused[2 * stride], encoder[stride] + (encoder[4] if stride == 4 else 0)
            if config.coarse_first:
                self.coarse[str(stride)] = nn.Conv2d(coarse, outputs, 3, padding=1)
            self.fuse[str(stride)] = nn.Conv2d(own if config.coarse_first else coarse + own, outputs, 3, padding=1)
            self.deepen[str(stride)] = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in range(depth))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                xavier_conv(module)

    def forward(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """{stride: [B,C,h,w]} of the encoder, strides 2 to 32 -> fused and its own, strides 4 to 32."""
        x = features[32]
        both = {32: x}
        for stride in STRIDES:
            own = [features[stride]]
            if stride == 4:
                own.append(F.relu(self.detail(features[2])))
            x = F.relu(self._fused(stride, x, own))
            for conv in self.deepen[str(stride)]:  # type: ignore[attr-defined]
                x = x + F.relu(conv(x))
            both[stride] = torch.cat([x, features[stride]], dim=1)
        return both

    def _fused(self, stride: int, coarser: Tensor, own: list[Tensor]) -> Tensor:
        """`own`: the frame's parts at `stride`; `coarser`: what was made at the stride before it."""
        name, first = str(stride), bool(self.coarse)
        up = self.coarse[name](coarser) if first else coarser
        up = F.interpolate(up, scale_factor=2.0, mode="bilinear", align_corners=False)
        fused: Tensor = self.fuse[name](torch.cat(own if first else [up, *own], dim=1))
        return fused + up if first else fused
