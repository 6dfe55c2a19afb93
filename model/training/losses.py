"""Losses over a clip (section III-B, eq. 5 and 7).

B items, T' = T - 1 predicted frames, h x w the output grid, H x W the input's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import DistanceConfig

_TERMS = ("bce", "jaccard", "distance")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms. Eq. 7 with lambda = 0.8 is (0.8, 0, 0.2). `balance_limit` caps b of eq. 5, so
    that objects below a share of 1 - limit of the frame weigh less than the paper has them: at 1, the paper's value, a
    frame without the object costs nothing however much is marked in it.
    `learned_weights`: the weights are learned as uncertainties (Kendall et al. 2018) from these starting
    points."""

    bce: float = 0.8
    jaccard: float = 0.0
    distance: float = 0.2
    balance_limit: float = 1.0
    learned_weights: bool = False


def balanced_bce(logits: Tensor, target: Tensor, limit: float = 1.0) -> Tensor:
    """Eq. 5 divided by the number of pixels: logits and target [B,T',H,W] -> scalar.
    b = |Y-| / |Y|, frame by frame; `limit` caps it: not the paper's eq. 5 any more below 1."""
    share = target.mean(dim=(-2, -1), keepdim=True)
    b = (1.0 - share).clamp(max=limit)
    weight = target * b + (1.0 - target) * (1.0 - b)
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).mean()


def soft_jaccard(logits: Tensor, target: Tensor) -> Tensor:
    """1 - soft IoU, mean over frames. One pixel of smoothing: an absent object, rightly unseen, costs 0."""
    p = torch.sigmoid(logits)
    intersection = (p * target).sum(dim=(-2, -1))
    union = (p + target - p * target).sum(dim=(-2, -1))
    return (1.0 - (intersection + 1.0) / (union + 1.0)).mean()


def distance_loss(scores: Tensor, target: Tensor, config: DistanceConfig) -> Tensor:
    """Cross-entropy over distance classes (eq. 7), or smooth L1 on distance / R when it is regressed.
    scores [B,T',K,h,w]; target [B,T',h,w]: class indices, or distances in pixels."""
    if config.kind == "classes":
        return F.cross_entropy(scores.flatten(0, 1), target.flatten(0, 1).long())
    return F.smooth_l1_loss(scores[:, :, 0], target / config.radius, beta=0.1)


class ClipLoss(nn.Module):
    """The weighted sum of eq. 7 and the terms by name, for the curves."""

    def __init__(self, config: LossConfig, distance: DistanceConfig | None) -> None:
        super().__init__()
        self.config = config
        self.distance = distance
        self.log_variance = nn.Parameter(torch.zeros(len(_TERMS))) if config.learned_weights else None

    def forward(
        self, logits: Tensor, scores: Tensor | None, masks: Tensor, distances: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """logits [B,T',1,h,w]; masks [B,T',H,W] 0/1 (logits are resized up to them); scores and distances on
        the output grid."""
        resized = F.interpolate(
            logits.flatten(0, 1).float(), size=masks.shape[-2:], mode="bilinear", align_corners=False
        ).view(masks.shape)
        terms = {"bce": balanced_bce(resized, masks, self.config.balance_limit)}
        if self.config.jaccard:
            terms["jaccard"] = soft_jaccard(resized, masks)
        if scores is not None and distances is not None and self.distance is not None:
            terms["distance"] = distance_loss(scores.float(), distances, self.distance)
        total = torch.zeros((), device=logits.device)
        for name, term in terms.items():
            total = total + getattr(self.config, name) * self._weighed(name, term)
        return total, {name: term.detach() for name, term in terms.items()}

    def _weighed(self, name: str, term: Tensor) -> Tensor:
        if self.log_variance is None:
            return term
        log_variance = self.log_variance[_TERMS.index(name)]
        return torch.exp(-log_variance) * term + log_variance
