"""Distance classes against a reading of eq. 6 word by word."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from model.config import DistanceConfig
from model.training.distance import distance_classes, distance_target, signed_distance

SETTINGS = [(20, 10), (20, 1), (10, 1)]
SHAPE = (36, 52)


def brute_force(mask: NDArray[np.uint8], radius: int) -> list[list[float]]:
    """D(p) = s_p * min(min over q in the boundary of ||p - q||, R), pixel by pixel."""
    height, width = mask.shape

    def is_boundary(y: int, x: int) -> bool:
        beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        return bool(mask[y, x]) and any(0 <= v < height and 0 <= u < width and not mask[v, u] for v, u in beside)

    boundary = [(y, x) for y in range(height) for x in range(width) if is_boundary(y, x)]

    def value(y: int, x: int) -> float:
        nearest = min((math.hypot(y - v, x - u) for v, u in boundary), default=math.inf)
        return (1 if mask[y, x] else -1) * min(nearest, radius)

    return [[value(y, x) for x in range(width)] for y in range(height)]


def brute_class(distance: float, radius: int, size: int) -> int:
    """Uniform bins of `size` between -R and R, one class for everything beyond on each side."""
    if distance <= -radius:
        return 0
    if distance >= radius:
        return 2 * radius // size + 1
    return next(k for k in range(1, 2 * radius // size + 1) if distance < -radius + k * size)


def masks() -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(3)
    made = {"empty": np.zeros(SHAPE, np.uint8), "full": np.ones(SHAPE, np.uint8), "dot": np.zeros(SHAPE, np.uint8)}
    made["dot"][17, 30] = 1
    made["hole"] = np.ones(SHAPE, np.uint8)
    made["hole"][10, 10] = 0
    made["border"] = np.zeros(SHAPE, np.uint8)
    made["border"][:, :26] = 1
    made["noise"] = (rng.random(SHAPE) < 0.01).astype(np.uint8)
    for number in range(2):
        blob = np.zeros(SHAPE, np.uint8)
        for _ in range(3):
            y, x, h, w = rng.integers(0, 30, 4)
            blob[y : y + h, x : x + w] = 1
        made[f"blob {number}"] = blob
    return made


@pytest.mark.parametrize("name", masks())
def test_classes_are_those_of_equation_six(name: str) -> None:
    mask = masks()[name]
    for radius in (20, 10):
        expected = brute_force(mask, radius)
        np.testing.assert_allclose(signed_distance(mask, radius), expected, atol=1e-5)
        for size in (size for r, size in SETTINGS if r == radius):
            classes = distance_classes(mask, DistanceConfig(radius, size))
            np.testing.assert_array_equal(classes, [[brute_class(d, radius, size) for d in row] for row in expected])


@pytest.mark.parametrize(("radius", "size"), SETTINGS)
def test_every_class_can_be_reached_and_no_other(radius: int, size: int) -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[20:, 20:] = 1
    config = DistanceConfig(radius, size)
    found = np.unique(distance_classes(mask, config))
    assert found.tolist() == list(range(config.classes))
    assert config.classes == 2 * radius // size + 2


def test_without_a_boundary_everything_is_far() -> None:
    config = DistanceConfig(10, 1)
    assert (distance_classes(np.zeros(SHAPE, np.uint8), config) == 0).all()
    assert (distance_classes(np.ones(SHAPE, np.uint8), config) == 21).all()


def test_the_target_is_what_the_head_is_of() -> None:
    mask = masks()["blob 0"]
    assert distance_target(mask, DistanceConfig(10, 1)).dtype == np.uint8
    regressed = distance_target(mask, DistanceConfig(10, 1, "regression"))
    # OpenCV's own threads round the last bit now one way and now the other.
    np.testing.assert_allclose(regressed, signed_distance(mask, 10), rtol=1e-6)
