"""Decoder and heads (section IV-C)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import DistanceConfig


class DecoderStage(nn.Module):
    """1x1 merge of (below, plain skip, skip-memory), bilinear x2, convolution. The 1x1 convolutions are the
    paper's "weighted averaging with learnable weights" (section III-A)."""

    def __init__(self, below: int, extra: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.merge = nn.Conv2d(below + extra, outputs, 1) if extra else None
        self.conv = nn.Conv2d(outputs if extra else below, outputs, kernel, padding=kernel // 2)

    def forward(self, below: Tensor, *extra: Tensor) -> Tensor:
        x = below if self.merge is None else F.relu(self.merge(torch.cat([below, *extra], dim=1)))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.relu(self.conv(x))


class MaskHead(nn.Module):
    """`forward(features) -> (mask logits [B,1,h,w], distance scores [B,K,h,w] or None)`.

    With the distance task: a segmentation branch of K channels beside the K distance scores, and a 1x1
    convolution over ReLU(both) (section IV-C)."""

    def __init__(self, inputs: int, distance: DistanceConfig | None) -> None:
        super().__init__()
        self.distance: nn.Conv2d | None = None
        self.segmentation: nn.Conv2d | None = None
        if distance is None:
            self.mask = nn.Conv2d(inputs, 1, 1)
        else:
            branch = distance.classes if distance.kind == "classes" else inputs
            self.segmentation = nn.Conv2d(inputs, branch, 1)
            self.distance = nn.Conv2d(inputs, distance.classes, 1)
            self.mask = nn.Conv2d(branch + distance.classes, 1, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.distance is None or self.segmentation is None:
            return self.mask(features), None
        scores: Tensor = self.distance(features)
        # A regressed distance is signed: rectifying it would hide the background from the mask.
        seen = F.relu(scores) if scores.shape[1] > 1 else scores
        return self.mask(torch.cat([F.relu(self.segmentation(features)), seen], dim=1)), scores
