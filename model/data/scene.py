"""Staging of a synthetic clip: what is in it, where it starts and how everything moves."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from model.data.augment import AugmentConfig, random_colour, recolour
from model.data.layers import CutOut, Layer, cut_out, sample, smear, without_object
from model.data.motion import CAMERA, THING, Wobble, affine_path, linear, smooth_walk, translation


@dataclass(frozen=True)
class SceneConfig:
    """Odds (probabilities) of what happens in a scene, and how strong it is.

    `own_background`: the object moves within its own photo, painted over where it was; else over another.
    `distractor`: another photo's object moves about, too. `twin`: a second copy of the object does.
    `occluder`: something passes in front of the object. `deformation` is the largest bending, as a share of
    the object's extent; `flicker` the typical change of light per frame, as a share.
    """

    own_background: float = 0.5
    distractor: float = 0.3
    twin: float = 0.2
    occluder: float = 0.3
    deformed: float = 0.7
    deformation: float = 0.05
    blurred: float = 0.3
    flicker: float = 0.01


@dataclass(frozen=True)
class Still:
    """A photo [H,W,3] and the 0/1 mask [H,W] of its object."""

    photo_HWC: NDArray[np.uint8]
    mask_HW: NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """A staged clip. Layers are drawn in order over the backdrop; layer `target` is the object."""

    size: tuple[int, int]
    backdrop_HWC: NDArray[np.uint8]
    backdrop_path_T33: NDArray[np.float64]
    backdrop_wobble: Wobble | None
    layers: tuple[Layer, ...]
    target: int
    colours_T34: NDArray[np.float64]

    def render(self, t: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Frame t, [H,W,3] RGB, and the 0/1 mask of the pixels that show mostly the object, [H,W]."""
        height, width = self.size
        box, mirrored = (0, height, 0, width), cv2.BORDER_REFLECT_101
        path, wobble = self.backdrop_path_T33, self.backdrop_wobble
        canvas = sample(self.backdrop_HWC, path[t], wobble, t, box, mirrored)
        canvas = smear(canvas, self._camera_velocity(t)) if self.layers[self.target].blurred else canvas
        seen = np.zeros(self.size, np.float32)
        for number, layer in enumerate(self.layers):
            look = layer.look(t, self.size)
            if look is None:
                continue
            region, rgba = look
            alpha = rgba[..., 3].astype(np.float32) * np.float32(1 / 255)
            colours = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
            canvas[region] = cv2.blendLinear(colours, np.ascontiguousarray(canvas[region]), alpha, 1 - alpha)
            if number == self.target:
                seen[region] = alpha
            elif number > self.target:
                seen[region] *= 1 - alpha
        return recolour(canvas, self.colours_T34[t]), (seen > 0.5).astype(np.uint8)

    def mask(self, t: int) -> NDArray[np.uint8]:
        """The 0/1 mask of frame t alone."""
        return self.render(t)[1]

    def _camera_velocity(self, t: int) -> NDArray[np.float64]:
        middle = np.array([self.size[1] / 2, self.size[0] / 2, 1.0])
        before, after = max(t - 1, 0), min(t + 1, len(self.backdrop_path_T33) - 1)
        # The paths take photo pixels to the canvas: follow the point that is in the middle at frame t.
        point = np.linalg.inv(self.backdrop_path_T33[t]) @ middle
        moved = (self.backdrop_path_T33[after] - self.backdrop_path_T33[before]) @ point
        return np.asarray(moved[:2] / max(after - before, 1))


def stage(
    still: Still,
    other: Still,
    backdrop_HWC: NDArray[np.uint8] | None,
    length: int,
    size: tuple[int, int],
    config: SceneConfig,
    colour: AugmentConfig,
    rng: np.random.Generator,
) -> Scene:
    """Set up a scene of `length` frames about the object of `still`.

    `other` lends the distractor, the occluder, and the backdrop where `backdrop_HWC` is None. The camera's
    motion moves everything, and each thing moves on its own besides.
    """
    thing = cut_out(still.photo_HWC, still.mask_HW)
    stager = _Stager(length, size, config, rng)
    if rng.random() < config.own_background:
        backdrop = without_object(still.photo_HWC, still.mask_HW)
        base = stager.cover(backdrop.shape, thing)
        target = stager.layer(thing, base)
    else:
        backdrop = other.photo_HWC if backdrop_HWC is None else backdrop_HWC
        base = stager.cover(backdrop.shape, None)
        target = stager.layer(thing, stager.placed(thing, 0.005, 0.3))
    layers: list[Layer] = [target]
    above: list[Layer] = []
    if rng.random() < config.twin:
        placed = stager.layer(thing, stager.placed(thing, 0.02, 0.2))
        (above if rng.random() < 0.5 else layers).insert(0, placed)
    stranger = cut_out(other.photo_HWC, other.mask_HW)
    if rng.random() < config.distractor:
        placed = stager.layer(stranger, stager.placed(stranger, 0.01, 0.15))
        (above if rng.random() < 0.5 else layers).insert(0, placed)
    if rng.random() < config.occluder:
        above.append(stager.occluder(stranger, target))
    wobble = Wobble.random(max(backdrop.shape), 0.01, rng) if rng.random() < config.deformed / 2 else None
    light = smooth_walk(length, np.array([config.flicker, 255 * config.flicker / 2]), rng)
    start = random_colour(rng, colour)
    look = np.eye(3, 4) if start is None else start
    colours = np.stack([look * (1 + gain) + [0, 0, 0, offset] for gain, offset in light])
    # What was put behind the object was inserted before it: it is the last of `layers`.
    return Scene(size, backdrop, stager.camera @ base, wobble, (*layers, *above), len(layers) - 1, colours)


class _Stager:
    """Draws places and paths for the things of one scene."""

    def __init__(self, length: int, size: tuple[int, int], config: SceneConfig, rng: np.random.Generator) -> None:
        self.length, self.config, self.rng = length, config, rng
        self.height, self.width = size
        self.side = float(max(size))
        middle = np.array([self.width / 2, self.height / 2])
        self.blurred = bool(rng.random() < config.blurred)
        self.camera = affine_path(length, middle, self.side, CAMERA, rng)

    def cover(self, shape: tuple[int, ...], thing: CutOut | None) -> NDArray[np.float64]:
        """A map that covers the canvas with a photo, zoomed and flipped; `thing` is seen, not tiny."""
        height, width = shape[:2]
        zoom = max(self.height / height, self.width / width) * self.rng.uniform(1.0, 1.5)
        at = np.array([width / 2, height / 2])
        if thing is not None:
            zoom = max(zoom, np.sqrt(0.02 * self.height * self.width / thing.area))
            at = thing.centre
        flip = np.diag([-1.0, 1.0, 1.0]) if self.rng.random() < 0.5 else np.eye(3)
        matrix = linear(zoom, 0.0) @ flip
        wanted = self.rng.uniform(0.2, 0.8, 2) * (self.width, self.height) - matrix[:2, :2] @ at
        corners = matrix[:2, :2] @ np.array([[0, width], [0, height]])
        low = np.array([self.width, self.height]) - corners.max(axis=1)
        return translation(np.clip(wanted, low, -corners.min(axis=1))) @ matrix

    def placed(self, thing: CutOut, smallest: float, largest: float) -> NDArray[np.float64]:
        """A map that puts a thing anywhere, covering a random share of the canvas, turned a little."""
        share = np.exp(self.rng.uniform(np.log(smallest), np.log(largest)))
        zoom = np.sqrt(share * self.height * self.width / thing.area)
        matrix = linear(zoom, self.rng.uniform(-0.3, 0.3), 0.0, np.exp(self.rng.uniform(-0.12, 0.12)))
        if self.rng.random() < 0.5:
            matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
        at = self.rng.uniform(0.1, 0.9, 2) * (self.width, self.height)
        return translation(at - matrix[:2, :2] @ thing.centre) @ matrix

    def layer(self, thing: CutOut, base: NDArray[np.float64]) -> Layer:
        """A thing that starts at `base` and moves on its own, within the camera's motion."""
        centre = (base @ np.append(thing.centre, 1.0))[:2]
        own = affine_path(self.length, centre, self.side, THING, self.rng)
        wobble = None
        if self.rng.random() < self.config.deformed:
            wobble = Wobble.random(thing.extent, self.config.deformation * self.rng.uniform(0.2, 1), self.rng)
        return Layer(thing, self.camera @ own @ base, wobble, self.blurred)

    def occluder(self, thing: CutOut, target: Layer) -> Layer:
        """A thing that crosses the target's way in a straight line; often it covers much of it."""
        scale = np.sqrt(np.abs(np.linalg.det(target.path_T33[0, :2, :2])))
        extent = scale * target.thing.extent
        base = linear(extent * self.rng.uniform(0.5, 1.5) / thing.extent, self.rng.uniform(-np.pi, np.pi))
        meeting = int(self.rng.integers(self.length))
        angle = self.rng.uniform(0, 2 * np.pi)
        step = extent * self.rng.uniform(0.08, 0.4) * np.array([np.cos(angle), np.sin(angle)])
        over = target.centre(meeting) + 0.2 * extent * self.rng.uniform(-1, 1, 2)
        aim = base[:2, :2] @ thing.centre
        path = np.stack([translation(over + (t - meeting) * step - aim) @ base for t in range(self.length)])
        return Layer(thing, path, None, self.blurred)
