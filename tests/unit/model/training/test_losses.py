"""The losses against direct readings of eq. 5 and 7."""

import math

import pytest
import torch
from torch import Tensor

from model.config import DistanceConfig
from model.training.losses import ClipLoss, LossConfig, balanced_bce, distance_loss, soft_jaccard


def random_case(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 6, 8, generator=generator) * 3
    target = (torch.rand(2, 3, 6, 8, generator=generator) < torch.tensor([0.1, 0.5, 0.9])[:, None, None]).float()
    return logits, target


def equation_five(logits: Tensor, target: Tensor, limit: float) -> float:
    """-b * sum over Y+ of log p - (1 - b) * sum over Y- of log(1 - p), b = |Y-| / |Y|, frame by frame."""
    total, pixels = 0.0, 0
    for frame_logits, frame_target in zip(logits.flatten(0, 1), target.flatten(0, 1), strict=True):
        values = list(zip(frame_logits.flatten().tolist(), frame_target.flatten().tolist(), strict=True))
        b = min(limit, sum(1 for _, y in values if y == 0) / len(values))
        for logit, y in values:
            p = 1 / (1 + math.exp(-logit))
            total -= b * math.log(p) if y == 1 else (1 - b) * math.log(1 - p)
        pixels += len(values)
    return total / pixels


@pytest.mark.parametrize("limit", [1.0, 0.7])
def test_balanced_bce_is_equation_five(limit: float) -> None:
    for seed in range(3):
        logits, target = random_case(seed)
        assert float(balanced_bce(logits, target, limit)) == pytest.approx(
            equation_five(logits, target, limit), rel=1e-5
        )


def test_the_limit_makes_false_alarms_on_an_absent_object_cost() -> None:
    marked, absent = torch.full((1, 1, 4, 4), 5.0), torch.zeros(1, 1, 4, 4)
    assert balanced_bce(marked, absent) == 0
    assert balanced_bce(marked, absent, 0.9) > 0.4


def test_soft_jaccard_is_one_minus_iou_with_one_pixel_of_smoothing() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    shifted = torch.zeros(1, 1, 4, 4)
    shifted[..., 1:3] = 1
    sure = (shifted * 2 - 1) * 40
    assert float(soft_jaccard(sure, target)) == pytest.approx(1 - (4 + 1) / (12 + 1))
    assert float(soft_jaccard((target * 2 - 1) * 40, target)) == pytest.approx(0, abs=1e-6)
    nothing = torch.zeros(1, 1, 4, 4)
    assert float(soft_jaccard(nothing - 40, nothing)) == pytest.approx(0, abs=1e-6)
    # The mean over frames, not over all pixels: a frame with a small object counts as much.
    both = torch.cat([target, nothing], dim=1)
    assert float(soft_jaccard(torch.cat([sure, nothing - 40], dim=1), both)) == pytest.approx((1 - 5 / 13) / 2)


def test_distance_classes_are_scored_by_cross_entropy() -> None:
    scores = torch.randn(2, 3, 6, 4, 5)
    target = torch.randint(0, 6, (2, 3, 4, 5), dtype=torch.uint8)
    expected = -scores.log_softmax(dim=2).gather(2, target.long()[:, :, None]).mean()
    torch.testing.assert_close(distance_loss(scores, target, DistanceConfig(20, 10)), expected)


def test_a_regressed_distance_is_scored_in_units_of_the_radius() -> None:
    config = DistanceConfig(20, 1, "regression")
    target = torch.tensor([[[[-20.0, 0.0], [10.0, 20.0]]]])
    assert float(distance_loss(target[:, :, None] / 20, target, config)) == 0
    off = target[:, :, None] / 20 + 0.5
    # Smooth L1 beyond beta = 0.1: |x| - 0.05
    assert float(distance_loss(off, target, config)) == pytest.approx(0.45)


def clip_case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """logits, scores, masks, distances."""
    torch.manual_seed(0)
    masks = (torch.rand(2, 3, 8, 8) < 0.3).float()
    return torch.randn(2, 3, 1, 4, 4), torch.randn(2, 3, 22, 4, 4), masks, torch.randint(0, 22, (2, 3, 4, 4))


def test_equation_seven_weighs_segmentation_and_distance() -> None:
    logits, scores, masks, distances = clip_case()
    total, terms = ClipLoss(LossConfig(), DistanceConfig(10, 1))(logits, scores, masks, distances)
    assert set(terms) == {"bce", "distance"}
    torch.testing.assert_close(total, 0.8 * terms["bce"] + 0.2 * terms["distance"])
    reference = LossConfig(bce=0.6, jaccard=0.2, distance=0.2)
    total, terms = ClipLoss(reference, DistanceConfig(10, 1))(logits, scores, masks, distances)
    torch.testing.assert_close(total, 0.6 * terms["bce"] + 0.2 * terms["jaccard"] + 0.2 * terms["distance"])


def test_without_the_distance_task_only_the_masks_count() -> None:
    logits, _, masks, _ = clip_case()
    total, terms = ClipLoss(LossConfig(bce=1.0), None)(logits, None, masks, None)
    assert set(terms) == {"bce"}
    resized = torch.nn.functional.interpolate(logits[:, :, 0], size=(8, 8), mode="bilinear")
    torch.testing.assert_close(total, balanced_bce(resized, masks))


def test_learned_weights_find_the_scale_of_each_term() -> None:
    """Kendall et al.: d/ds (exp(-s) L + s) = 0 where exp(s) = L."""
    logits, scores, masks, distances = clip_case()
    loss = ClipLoss(LossConfig(1.0, 1.0, 1.0, learned_weights=True), DistanceConfig(10, 1))
    assert loss.log_variance is not None
    start, terms = loss(logits, scores, masks, distances)
    torch.testing.assert_close(start.detach(), sum(terms.values()))
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss(logits, scores, masks, distances)[0].backward()
        optimizer.step()
    expected = torch.stack([terms["bce"], terms["jaccard"], terms["distance"]]).log()
    torch.testing.assert_close(loss.log_variance.detach(), expected, atol=0.02, rtol=0)
