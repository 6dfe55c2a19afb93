"""Decoder and heads (section IV-C)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import DistanceConfig
from model.network.encoders import xavier_conv
from model.network.split_conv import SplitConv2d

Up = Literal["bilinear", "sub_pixel", "none"]


def spread(x: Tensor) -> Tensor:
    """[B,4C,h,w] -> [B,C,2h,2w]: the channels hold the four pixels of a cell, row by row (Shi et al. 2016, with whole
    pixels one after the other: where the runtime keeps a pixel's channels together, long runs are moved, not bytes)."""
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, channels // 2).permute(0, 1, 3, 2, 4)
    return rows.reshape(batch, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)


class DecoderStage(nn.Module):
    """1x1 merge of (plain skip, below, skip-memory), bilinear x2, convolution. The 1x1 convolutions are the paper's
    "weighted averaging with learnable weights" (section III-A).

    `frame`: channels of the plain skip, 0 for the bottleneck's stage, which has nothing to merge. `merged`: those
    of the merge. `up`: bilinear; sub_pixel: the convolution comes first and makes the four pixels of each cell; none:
    the merge alone."""

    def __init__(self, frame: int, own: Sequence[int], merged: int, outputs: int, kernel: int, up: Up) -> None:
        super().__init__()
        self.up = up
        self.merge = SplitConv2d(frame, own, merged, 1) if frame else None
        if up != "none":
            made = 4 * outputs if up == "sub_pixel" else outputs
            self.conv = nn.Conv2d(merged if frame else own[0], made, kernel, padding=kernel // 2)
            xavier_conv(self.conv)

    def of_frame(self, features: Tensor) -> Tensor:
        assert self.merge is not None
        return self.merge.of_frame(features)

    def forward(self, of_frame: Tensor | None, *own: Tensor) -> Tensor:
        x = own[0] if self.merge is None else F.relu(self.merge(of_frame, *own))
        if self.up == "none":
            return x
        if self.up == "sub_pixel":
            return spread(F.relu(self.conv(x)))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.relu(self.conv(x))


class MaskHead(nn.Module):
    """`forward(features [B,C,h,w]) -> (mask logits [B,1,h,w], distance scores [B,K,h,w] or None)`.

    With the distance task: a segmentation branch of K channels beside the K distance scores, and a 1x1
    convolution over ReLU(both) (section IV-C). `sub_pixel`: mask logits [B,1,2h,2w]."""

    def __init__(self, inputs: int, distance: DistanceConfig | None, *, sub_pixel: bool = False) -> None:
        super().__init__()
        self.distance = distance
        self.sub_pixel = sub_pixel
        if distance is not None:
            self.segmentation = distance.classes if distance.kind == "classes" else inputs
            # One convolution for both branches: they see the same features.
            self.branches = nn.Conv2d(inputs, self.segmentation + distance.classes, 1)
            xavier_conv(self.branches)
            inputs = self.segmentation + distance.classes
        self.mask = nn.Conv2d(inputs, 4 if sub_pixel else 1, 1)
        xavier_conv(self.mask)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        scores: Tensor | None = None
        if self.distance is not None:
            both = self.branches(features)
            scores = both[:, self.segmentation :]
            if self.distance.kind == "classes":
                features = F.relu(both)
            else:
                # A regressed distance is signed: rectifying it would hide the background from the mask.
                features = torch.cat([F.relu(both[:, : self.segmentation]), scores], dim=1)
        logits: Tensor = self.mask(features)
        return spread(logits) if self.sub_pixel else logits, scores
