"""Decoder and heads (section IV-C)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import DistanceConfig
from model.network.encoders import xavier_conv
from model.network.split_conv import SplitConv2d


class DecoderStage(nn.Module):
    """1x1 merge of (plain skip, below, skip-memory), bilinear x2, convolution; not `up`: the merge alone. The 1x1
    convolutions are the paper's "weighted averaging with learnable weights" (section III-A).

    `frame`: channels of the plain skip, 0 for the bottleneck's stage, which has nothing to merge."""

    def __init__(self, frame: int, own: Sequence[int], outputs: int, kernel: int, *, up: bool = True) -> None:
        super().__init__()
        self.merge = SplitConv2d(frame, own, outputs, 1) if frame else None
        self.conv = nn.Conv2d(outputs if frame else own[0], outputs, kernel, padding=kernel // 2) if up else None
        if self.conv is not None:
            xavier_conv(self.conv)

    def of_frame(self, features: Tensor) -> Tensor:
        assert self.merge is not None
        return self.merge.of_frame(features)

    def forward(self, of_frame: Tensor | None, *own: Tensor) -> Tensor:
        x = own[0] if self.merge is None else F.relu(self.merge(of_frame, *own))
        if self.conv is None:
            return x
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
        return F.pixel_shuffle(logits, 2) if self.sub_pixel else logits, scores
