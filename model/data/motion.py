"""Smooth random motion for synthetic clips: affine paths and slowly changing displacement fields."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INERTIA = 0.85
BURST_ODDS = 0.04
BURST = 4.0


def smooth_walk(length: int, speeds: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Random walks that start at 0 and keep their velocity for a while: [length, K] for K typical speeds.

    Now and then a burst makes all of them fast at once, and inertia wears it off.
    """
    velocity = speeds * rng.standard_normal(len(speeds))
    walk = np.zeros((length, len(speeds)))
    for t in range(1, length):
        if rng.random() < BURST_ODDS:
            velocity = velocity * BURST
        walk[t] = walk[t - 1] + velocity
        push = np.sqrt(1 - INERTIA**2) * speeds * rng.standard_normal(len(speeds))
        velocity = INERTIA * velocity + push
    return walk


@dataclass(frozen=True)
class Pace:
    """Typical change per frame: shift (share of the longer side), zoom and shear (shares), turn (radians)."""

    shift: float
    zoom: float
    turn: float
    shear: float


CAMERA = Pace(shift=0.006, zoom=0.006, turn=0.006, shear=0.002)
THING = Pace(shift=0.012, zoom=0.012, turn=0.022, shear=0.010)
# No walk goes further than this from where it started (longer sides, log zoom, radians, shear).
LIMITS = np.array([0.5, 0.5, 0.6, 0.9, 0.3])


def affine_path(
    length: int, centre: NDArray[np.float64], side: float, pace: Pace, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Affine maps about `centre` (x, y) for `length` frames: [length,3,3], the first one the identity.

    How lively a path is varies a lot from one to the next; `side` is the picture's longer side in pixels.
    """
    lively = np.exp(0.8 * rng.standard_normal())
    speeds = lively * np.array([pace.shift, pace.shift, pace.zoom, pace.turn, pace.shear])
    walk = LIMITS * np.tanh(smooth_walk(length, speeds, rng) / LIMITS)
    turned = [linear(np.exp(zoom), turn, shear) @ translation(-centre) for *_, zoom, turn, shear in walk]
    return np.stack([translation(centre + side * step[:2]) @ turn for step, turn in zip(walk, turned, strict=True)])


def translation(by: NDArray[np.float64]) -> NDArray[np.float64]:
    """A shift by (x, y) as [3,3]."""
    matrix = np.eye(3)
    matrix[:2, 2] = by
    return matrix


def linear(scale: float, angle: float, shear: float = 0.0, stretch: float = 1.0) -> NDArray[np.float64]:
    """Stretch (x by `stretch`, y by its inverse), shear, rotation and scaling about the origin as [3,3]."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]])
    return matrix @ np.diag([stretch, 1 / stretch, 1.0])


@dataclass(frozen=True)
class Wobble:
    """A smooth displacement field that changes over time: a few plane waves, each running its own way.

    `waves_K2` holds wave vectors (radians per pixel), `pushes_K2` amplitudes (pixels), `phases_K` and
    `rates_K` phases (radians) and their change per frame.
    """

    waves_K2: NDArray[np.float64]
    pushes_K2: NDArray[np.float64]
    phases_K: NDArray[np.float64]
    rates_K: NDArray[np.float64]

    @classmethod
    def random(cls, extent: float, strength: float, rng: np.random.Generator) -> "Wobble":
        """Draw a field for something `extent` pixels long; `strength` is its amplitude as a share of that.

        Waves are longer than half the extent, so up to a strength of about 0.08 the field does not fold.
        """
        count = 3
        angles = rng.uniform(0, 2 * np.pi, (2, count))
        lengths = extent * rng.uniform(0.6, 2.0, count)
        waves = (2 * np.pi / lengths)[:, None] * np.column_stack([np.cos(angles[0]), np.sin(angles[0])])
        amplitude = strength * extent / np.sqrt(count)
        pushes = amplitude * np.column_stack([np.cos(angles[1]), np.sin(angles[1])])
        return cls(waves, pushes, rng.uniform(0, 2 * np.pi, count), rng.uniform(-0.5, 0.5, count))

    @property
    def reach(self) -> float:
        """No point is displaced by more than this many pixels."""
        return float(np.linalg.norm(self.pushes_K2, axis=1).sum())

    def at(self, points: NDArray[np.float64], t: int) -> NDArray[np.float64]:
        """Displacement (x, y) of points [...,2] at frame t."""
        waves = np.sin(points @ self.waves_K2.T + self.phases_K + t * self.rates_K)
        return np.asarray(waves @ self.pushes_K2)
