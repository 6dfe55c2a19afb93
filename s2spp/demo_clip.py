"""The clip that `s2spp demo` plays: a goldfish in a pond, rendered from nothing, with its true mask.

What makes it worth following: the fish bends and beats its fins all the time; another of the same look (the
same painter, the same colours) passes close by; it swims right under a group of lily pads, is wholly hidden
and comes out on the other side; the camera pans and zooms over three layers at different depths; light plays
over all that is under water, and a cloud passes; there are soft shadows, motion blur and sensor noise.

Lengths are in reference pixels (those of an 854 x 480 frame), times t run from 0 to 1 over the clip: the same
story at any size and any number of frames. Knows nothing of models or servers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from s2spp import demo_textures as paint
from s2spp.demo_textures import Image

Point = tuple[float, float]
"""(x, y)."""

HALF_FISH = 138.0  # half of a fish's length
FISH_WAY, CAMERA_WAY = 1300.0, 900.0
BED, SURFACE = 0.85, 1.12  # the share of the camera's way by which a layer moves; the fish's own is 1
PASSING, HIDDEN = 0.17, 0.52  # when the other fish is closest; when the lily pads hide the fish
SHADOW = (22.0, 30.0)  # from a thing to its shadow on the bed
SHUTTER = 0.35  # the share of a frame's time in which light falls on the sensor
MURK, MURK_SHARE = np.array((0.15, 0.24, 0.17), np.float32), np.float32(0.13)


def render_demo_clip(
    frames: int = 96, size: tuple[int, int] = (480, 854), seed: int = 7
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield (frame, labels) `frames` times: uint8 [H,W,3] RGB and uint8 [H,W], 1 where the fish is seen.

    `size` is (height, width). A pixel is the fish's if the fish, unhidden, covers at least half of it.
    The same arguments give the same clip.

    Raises:
        ValueError: fewer than two frames, or a side below 32 pixels.
    """
    if frames < 2 or min(size) < 32:
        raise ValueError(f"a clip needs at least 2 frames and 32 x 32 pixels, not {frames} of {size}")
    pond = _Pond(size, 1 / (frames - 1), np.random.default_rng(seed))
    return (pond.picture(index / (frames - 1)) for index in range(frames))


def _fish_at(t: float) -> Point:
    return FISH_WAY * (t - 0.5) + 18 * math.sin(9 * t), 75 * math.cos(4.6 * t) - 10


def _other_fish_at(t: float) -> Point:
    x, y = _fish_at(PASSING)
    since = t - PASSING
    return x + 40 - 520 * since, y - 168 + 40 * math.sin(5 * since) - 260 * since * since


# ---------------------------------------------------------------- camera


@dataclass(frozen=True, slots=True)
class _View:
    """What the camera sees at one moment: where it points, and how places and layers come onto the screen."""

    size: tuple[int, int]
    unit: float
    centre: Point
    zoom: float

    @property
    def scale(self) -> float:
        """Screen pixels per reference pixel."""
        return self.unit * self.zoom

    def on_screen(self, place: Point) -> Point:
        """The screen position of a place in the water."""
        height, width = self.size
        x, y = place[0] - self.centre[0], place[1] - self.centre[1]
        return width / 2 + self.scale * x, height / 2 + self.scale * y

    def layer(self, texture: NDArray[np.uint8], depth: float, drift: Point = (0.0, 0.0)) -> NDArray[np.uint8]:
        """What is seen of a texture whose middle lies at the pond's middle, moved by `drift`."""
        height, width = self.size
        x = texture.shape[1] / 2 + self.unit * (depth * self.centre[0] - drift[0]) - width / 2 / self.zoom
        y = texture.shape[0] / 2 + self.unit * (depth * self.centre[1] - drift[1]) - height / 2 / self.zoom
        to_texture = np.array([[1 / self.zoom, 0, x], [0, 1 / self.zoom, y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        seen = cv2.warpAffine(texture, to_texture, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(seen, np.uint8)


# ---------------------------------------------------------------- layers


@dataclass(frozen=True, slots=True)
class _Cut:
    """A picture with holes: colour [h,w,3], already multiplied by its cover [h,w], both 0..1."""

    colour: Image
    cover: Image

    @staticmethod
    def of(rgba: NDArray[np.uint8]) -> _Cut:
        colour = cv2.cvtColor(rgba, cv2.COLOR_BGRA2BGR).astype(np.float32)
        cover = cv2.extractChannel(rgba, 3).astype(np.float32)
        return _Cut(colour * np.float32(1 / 255), cover * np.float32(1 / 255))

    def over(self, scene: Image) -> Image:
        return np.asarray(scene * _grey(1 - self.cover) + self.colour, np.float32)


def _grey(brightness: Image) -> Image:
    """[h,w] as [h,w,3]: numpy's own broadcasting over three channels is several times slower."""
    return np.asarray(cv2.merge([brightness] * 3), np.float32)


def _window(middle: float, reach: float, side: int) -> slice:
    """The part of 0..side around the middle; if all is outside, one pixel, for OpenCV takes nothing empty."""
    start = min(max(int(middle - reach), 0), side - 1)
    return slice(start, min(max(int(middle + reach), start + 1), side))


def _smeared(picture: NDArray[np.uint8], length: float) -> NDArray[np.uint8]:
    """Motion blur, sideways as nearly all motion here is."""
    width = 2 * round(length / 2) + 1
    return picture if width == 1 else np.asarray(cv2.blur(picture, (width, 1)), np.uint8)


# ---------------------------------------------------------------- fish


@dataclass(frozen=True, slots=True)
class _Fish:
    """A skin that bends, breathes and beats its fins on its way through the pond."""

    skin: NDArray[np.uint8]
    way: Callable[[float], Point]
    phase: list[float]

    def seen(self, view: _View, t: float, step: float) -> tuple[tuple[slice, slice], _Cut]:
        """The window of the screen (rows, columns) that holds the fish, and what is in it."""
        half = HALF_FISH * view.scale
        x, y = view.on_screen(self.way(t))
        rows, columns = (_window(at, 1.3 * half, side) for at, side in zip((y, x), view.size, strict=True))
        ahead, behind = self.way(t + 0.01), self.way(t - 0.01)
        heading = math.atan2(ahead[1] - behind[1], ahead[0] - behind[0]) + 0.06 * self._beat(t, 4, 0)
        across, down = np.arange(columns.start, columns.stop) - x, np.arange(rows.start, rows.stop) - y
        cos, sin = math.cos(heading) / half, math.sin(heading) / half
        u = (cos * across[None] + sin * down[:, None]).astype(np.float32)
        v = (cos * down[:, None] - sin * across[None]).astype(np.float32)
        patch = self._stretched(u, v, t)
        speed = abs(x - view.on_screen(self.way(t - step))[0])
        return (rows, columns), _Cut.of(_smeared(patch, speed * SHUTTER))

    def _beat(self, t: float, times: float, which: int) -> float:
        return math.sin(2 * math.pi * times * t + self.phase[which])

    def _stretched(self, u: Image, v: Image, t: float) -> NDArray[np.uint8]:
        """The skin at body coordinates (u along, v across) of a body that is not straight at time t."""
        # A wave runs down the body and grows towards the tail; the whole body curves slowly.
        tailward = (0.9 - u) / 1.9
        wave = np.sin(3.0 * u + (2 * math.pi * 6.5 * t + self.phase[1]))
        bend = (0.015 + 0.15 * tailward * tailward) * wave + 0.13 * self._beat(t, 1.3, 2) * u * u
        v = np.asarray(v - bend, np.float32)
        # Fourier coefficients of the outline.
        for order, size, times, which in ((1, 0.09, 2.2, 3), (2, 0.06, 3.1, 4)):
            swell = 1 + size * self._beat(t, times, which) * np.cos(math.pi * order / 1.2 * u)
            v = np.asarray(v / swell, np.float32)
        # The fins swing to and fro.
        u = np.asarray(u + 0.25 * self._beat(t, 5.5, 0) * np.maximum(np.abs(v) - 0.33, 0), np.float32)
        texels = self.skin.shape[1] / 2 / paint.SKIN_REACH[0]
        column, row = (u + paint.SKIN_REACH[0]) * texels, (v + paint.SKIN_REACH[1]) * texels
        return np.asarray(cv2.remap(self.skin, column, row, cv2.INTER_LINEAR), np.uint8)


# ---------------------------------------------------------------- pond


class _Pond:
    """All textures of one clip, and the picture of any moment. `step` is the time between two frames."""

    def __init__(self, size: tuple[int, int], step: float, rng: np.random.Generator) -> None:
        height, width = size
        self._size, self._step, self._rng = size, step, rng
        # As large as 854 x 480 of the same area, but the fish's way stays in sight in a tall or a flat frame.
        self._unit = unit = min(math.sqrt(height * width / (480 * 854)), width / 720, height / 430)
        self._shake = rng.uniform(0, 1, (2, 2))
        extent = [(int(height + 110 * unit), int(width + (depth * CAMERA_WAY + 40) * unit)) for depth in (BED, SURFACE)]
        self._bed = _to_bytes(paint.pond_bed(rng, extent[0], unit))
        half = extent[0][0] // 2, extent[0][1] // 2
        self._nets = [_to_bytes(paint.caustics(rng, half, unit / 2)) for _ in range(2)]
        skins = [_to_bytes(paint.fish_skin(rng, 1.3 * HALF_FISH * unit)) for _ in range(2)]
        self._fish = _Fish(skins[0], _fish_at, rng.uniform(0, 6, 5).tolist())
        self._other = _Fish(skins[1], _other_fish_at, rng.uniform(0, 6, 5).tolist())
        self._pads = _to_bytes(self._lily_pads(extent[1], rng))
        grain = rng.normal(0, 1, (height + 64, width + 64, 3)).astype(np.float32)
        self._grain = cv2.GaussianBlur(grain, (0, 0), 0.6) * np.float32(0.022)

    def picture(self, t: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The frame and the labels at time t."""
        view = self._view(t)
        pan = abs(view.centre[0] - self._view(t - self._step).centre[0]) * view.scale * SHUTTER
        pads = _Cut.of(_smeared(view.layer(self._pads, SURFACE), SURFACE * pan))
        fishes = [fish.seen(view, t, self._step) for fish in (self._other, self._fish)]

        light = self._light(view, t, pads.cover)
        shading = np.zeros(self._size, np.float32)
        for window, fish in fishes:
            shading[window] = np.maximum(shading[window], fish.cover)
        on_bed = light * (1 - 0.55 * self._shadow(shading, view, 1.0))
        bed = _smeared(view.layer(self._bed, BED), BED * pan)
        scene = np.asarray(cv2.multiply(bed, _grey(on_bed), scale=1 / 255, dtype=cv2.CV_32F), np.float32)
        for window, fish in fishes:
            lit = fish.colour * _grey(light[window])
            murky = np.asarray(lit + (MURK * _grey(fish.cover) - lit) * MURK_SHARE, np.float32)
            scene[window] = _Cut(murky, fish.cover).over(scene[window])
        scene = pads.over(scene)

        window, fish = fishes[1]
        labels = np.zeros(self._size, np.uint8)
        labels[window] = fish.cover * (1 - pads.cover[window]) >= 0.5
        return self._exposed(scene, t), labels

    def _view(self, t: float) -> _View:
        hand = 2.5 * np.sin(2 * math.pi * (np.array([[2.3], [5.1]]) * t + self._shake)).sum(axis=0)
        centre = CAMERA_WAY * (t - 0.5) + float(hand[0]), 25 * math.cos(4.6 * t - 0.4) + float(hand[1])
        return _View(self._size, self._unit, centre, 1 + 0.16 * _between(t, 0.55, 1.0))

    def _lily_pads(self, shape: tuple[int, int], rng: np.random.Generator) -> Image:
        """The surface of the whole pond: a group of pads that hides the fish at HIDDEN, and a few others."""
        surface = np.zeros((*shape, 4), np.float32)
        fish, camera = _fish_at(HIDDEN), self._view(HIDDEN).centre
        group = [fish[i] - camera[i] + SURFACE * camera[i] for i in (0, 1)]
        around = [(122, -104, 124, -0.9), (-106, 128, 96, 2.6), (112, 96, 128, 0.3), (-116, -84, 112, 3.6)]
        near = [(group[0] + x, group[1] + y, radius, slit) for x, y, radius, slit in around]
        far = [(-420, 215, 62, 1.0), (-330, 262, 44, 3.0), (-610, -235, 70, 5.0), (560, -225, 66, 2.0)]
        far += [(640, 225, 84, 0.0), (770, 190, 50, 4.4), (840, -200, 60, 1.2)]
        for x, y, radius, slit in [*far, *near, (group[0], group[1], 186, -2.5)]:
            centre = shape[1] / 2 + x * self._unit, shape[0] / 2 + y * self._unit
            paint.lay_lily_pad(surface, rng, centre, radius * self._unit, slit)
        return surface

    def _light(self, view: _View, t: float, pads: Image) -> Image:
        """What the sun gives at each place under water, [H,W], about 1."""
        half = replace(view, size=(view.size[0] // 2, view.size[1] // 2), unit=view.unit / 2)
        drifts = ((90 * t, 20 * t), (-70 * t, 45 * t + 31))
        one, two = (half.layer(net, BED, drift) for net, drift in zip(self._nets, drifts, strict=True))
        net = cv2.resize(cv2.min(one, two), self._size[::-1], interpolation=cv2.INTER_LINEAR)
        sun = 0.82 + net.astype(np.float32) * np.float32(2.4 / 255)
        return sun * (1 - 0.6 * self._shadow(pads, view, 2.0))

    def _shadow(self, coverage: Image, view: _View, height: float) -> Image:
        """The soft shadow on the bed of what covers this much of the screen, [H,W] in 0..1."""
        small = cv2.resize(coverage, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        shift = height * view.scale / 4 * np.array(SHADOW)
        moved = cv2.warpAffine(small, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), small.shape[::-1])
        soft = cv2.GaussianBlur(moved, (0, 0), 1.6 * height * view.scale)
        return np.asarray(cv2.resize(soft, self._size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)

    def _exposed(self, scene: Image, t: float) -> NDArray[np.uint8]:
        """The scene, 0..1, as the sensor gives it: under the cloud of this moment, with noise."""
        cloud = 1.25 - 0.42 * _between(t, 0.66, 0.8) + 0.25 * _between(t, 0.88, 1.0)
        y, x = self._rng.integers(0, 64, 2)
        grain = self._grain[y : y + self._size[0], x : x + self._size[1]]
        return np.asarray(cv2.addWeighted(scene, 255 * cloud, grain, 255, 0, dtype=cv2.CV_8U), np.uint8)


def _between(t: float, start: float, end: float) -> float:
    """0 before `start`, 1 after `end`, smooth between them."""
    share = min(max((t - start) / (end - start), 0.0), 1.0)
    return share * share * (3 - 2 * share)


def _to_bytes(texture: Image) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(texture, 0, 1) * 255), np.uint8)
