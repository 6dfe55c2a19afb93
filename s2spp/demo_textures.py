"""What the demo clip is painted with: a pond bed, the light on it, a goldfish's skin, lily pads.

Everything comes from one random generator, is painted once per clip and is float32, 0..1. `unit` is how many
pixels a reference pixel measures (1 in an 854 x 480 frame). Knows nothing of motion or time: see demo_clip.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Shape = tuple[int, int]
Points = list[tuple[float, float]]


def noise(rng: np.random.Generator, shape: Shape, cell: float, octaves: int = 5) -> Image:
    """Multi-octave noise [H,W] in 0..1; the coarsest blobs are about `cell` pixels wide."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        grid = rng.random((int(height / step) + 3, int(width / step) + 3), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(0.6**octave)
    low, high = np.percentile(total[::4, ::4], (1, 99))
    return _clipped((total - low) / (high - low))


def smoothstep(x: Image, low: float, high: float) -> Image:
    """0 below `low`, 1 above `high`, smooth between them."""
    t = _clipped((x - low) / (high - low))
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _clipped(x: NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(x, 0, 1), np.float32)


def _mix(a: Image, b: Image, share: Image) -> Image:
    return a + (b - a) * share[..., None]


def _tone(colour: tuple[float, float, float], brightness: Image) -> Image:
    return np.asarray(colour, np.float32) * brightness[..., None]


def _cells(rng: np.random.Generator, shape: Shape, spacing: float) -> tuple[NDArray[np.int32], Image]:
    """Cells around jittered seeds: which one each pixel is in, and how many spacings from its seed."""
    height, width = shape
    ys, xs = np.mgrid[0 : height / spacing, 0 : width / spacing]
    ys = np.minimum((ys + rng.uniform(0.1, 0.9, ys.shape)) * spacing, height - 1).astype(int)
    xs = np.minimum((xs + rng.uniform(0.1, 0.9, xs.shape)) * spacing, width - 1).astype(int)
    seeds = np.ones(shape, np.uint8)
    seeds[ys, xs] = 0
    distance, cell = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return np.asarray(cell, np.int32), np.asarray(distance / np.float32(spacing), np.float32)


def _wobbled(image: Image, rng: np.random.Generator, reach: float, cell: float) -> Image:
    """`image` with its straight edges bent: each pixel is fetched from up to `reach` away."""
    shape = image.shape[0], image.shape[1]
    ys, xs = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    xs += (noise(rng, shape, cell, 3) - 0.5) * np.float32(2 * reach)
    ys += (noise(rng, shape, cell, 3) - 0.5) * np.float32(2 * reach)
    return np.asarray(cv2.remap(image, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)


def _blurred(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def _relief(height: Image, strength: float) -> Image:
    """The light that a surface of this height gets from the upper left; 1 where it is level."""
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0) + 0.7 * cv2.Sobel(height, cv2.CV_32F, 0, 1)
    return np.asarray(1 + strength * slope, np.float32)


def pond_bed(rng: np.random.Generator, shape: Shape, unit: float) -> Image:
    """Pebbles of two sizes, silt over part of them, weed in patches: [H,W,3]."""
    bed = np.zeros((*shape, 3), np.float32)
    stones = np.array([(0.42, 0.38, 0.30), (0.30, 0.30, 0.26), (0.52, 0.48, 0.40), (0.36, 0.40, 0.38)])
    for spacing, share in (
        (15 * unit, np.ones(shape, np.float32)),
        (46 * unit, smoothstep(noise(rng, shape, 260 * unit, 3), 0.5, 0.6)),
    ):
        cell, distance = _cells(rng, shape, spacing)
        count = int(cell.max()) + 1
        colours = stones[rng.integers(len(stones), size=count)] * rng.uniform(0.7, 1.25, (count, 1))
        dome = np.sqrt(_clipped(1 - (distance / 0.64) ** 2))
        light = _relief(dome, 0.02 * spacing / unit) * (0.3 + 0.7 * dome)
        pebbles = np.asarray(colours[cell] * light[..., None], np.float32)
        bed = _mix(bed, _wobbled(pebbles, rng, 0.25 * spacing, spacing), share)
    silt = _tone((0.36, 0.33, 0.23), 0.7 + 0.5 * noise(rng, shape, 12 * unit))
    bed = _mix(bed, silt, 0.85 * smoothstep(noise(rng, shape, 200 * unit), 0.4, 0.75))
    weed = _tone((0.14, 0.23, 0.10), 0.4 + noise(rng, shape, 9 * unit, 4))
    bed = _mix(bed, weed, 0.85 * smoothstep(noise(rng, shape, 150 * unit), 0.6, 0.8))
    bed *= (0.7 + 0.55 * noise(rng, shape, 420 * unit, 2))[..., None]
    return _blurred(bed * np.array((0.92, 1.0, 0.90), np.float32), 0.9 * unit)


def caustics(rng: np.random.Generator, shape: Shape, unit: float) -> Image:
    """The net of light that waves throw on the ground, [H,W]."""
    _, distance = _cells(rng, shape, 62 * unit)
    net = _wobbled(_clipped(distance / 0.8) ** 3, rng, 24 * unit, 60 * unit)
    return _blurred(net, 2.5 * unit)


# ---------------------------------------------------------------- fish

SKIN_REACH = (1.16, 0.74)
"""A skin spans -x..x and -y..y in half fish lengths: nose at +1, tail at -1."""

_CREAM, _ORANGE, _DARK = (0.93, 0.86, 0.76), (0.92, 0.36, 0.06), (0.15, 0.10, 0.09)
# Outlines of the upper side, from the head backwards; the fins are whole.
_BODY: Points = [(0.97, 0.06), (0.88, 0.19), (0.68, 0.31), (0.38, 0.38), (0.05, 0.36), (-0.25, 0.22)]
_BODY += [(-0.5, 0.09)]
_TAIL: Points = [(-0.4, 0.07), (-0.62, 0.2), (-0.85, 0.43), (-1.08, 0.5), (-1.05, 0.3), (-0.92, 0.1)]
_TAIL += [(-0.84, 0.02)]
_DORSAL: Points = [(0.3, 0.01), (0.1, 0.04), (-0.3, 0.03), (-0.45, 0.01)]
_PECTORAL: Points = [(0.52, 0.25), (0.5, 0.46), (0.36, 0.64), (0.2, 0.66), (0.18, 0.5), (0.3, 0.28)]
_PELVIC: Points = [(0.0, 0.25), (-0.1, 0.42), (-0.26, 0.52), (-0.36, 0.48), (-0.3, 0.32), (-0.18, 0.18)]


def _lower(points: Points) -> Points:
    return [(x, -y) for x, y in points]


def _whole(upper: Points) -> Points:
    return [*upper, *reversed(_lower(upper))]


def _closed_curve(points: Points) -> NDArray[np.float64]:
    """A smooth closed curve through the points (Catmull-Rom), [n,2]."""
    p = np.array(points)
    a, b, c, d = (np.roll(p, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))
    t = np.linspace(0, 1, 16, endpoint=False)[None, :, None]
    curve = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    return np.asarray(curve / 2, np.float64).reshape(-1, 2)


def _filled(points: Points, shape: Shape, scale: float) -> Image:
    """Coverage [H,W] of a closed curve that is given in half fish lengths."""
    curve = (_closed_curve(points) + SKIN_REACH) * scale * 4
    large = np.zeros((shape[0] * 4, shape[1] * 4), np.uint8)
    cv2.fillPoly(large, [np.rint(curve).astype(np.int32)], 255)
    small = cv2.resize(large, shape[::-1], interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)


def _dome(coverage: Image, scale: float) -> Image:
    """A rounded height, 0 at the rim of the shape and 1 at its middle."""
    depth = cv2.distanceTransform((coverage > 0.5).astype(np.uint8), cv2.DIST_L2, 5).astype(np.float32)
    fall = 1 - _clipped(depth / max(float(depth.max()), 1.0))
    return _blurred(np.sqrt(1 - fall * fall), 0.02 * scale)


def _lay(skin: Image, coverage: Image, colour: Image) -> None:
    """Put a colour [H,W,3] over a premultiplied picture [H,W,4], where and as far as `coverage` says."""
    skin += (np.dstack([colour, np.ones_like(coverage)]) - skin) * coverage[..., None]


def fish_skin(rng: np.random.Generator, scale: float) -> Image:
    """A goldfish from above, [H,W,4], premultiplied by its coverage; `scale`: the pixels of half a fish."""
    shape = math.ceil(2 * SKIN_REACH[1] * scale), math.ceil(2 * SKIN_REACH[0] * scale)
    ys, xs = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x, y = xs / np.float32(scale) - SKIN_REACH[0], ys / np.float32(scale) - SKIN_REACH[1]
    grain = 0.88 + 0.24 * noise(rng, shape, 0.08 * scale, 4)
    skin = np.zeros((*shape, 4), np.float32)

    fins = [(_whole(_TAIL), (-0.2, 0.0))]
    for fin, (root_x, root_y) in ((_PECTORAL, (0.55, 0.2)), (_PELVIC, (0.08, 0.15))):
        fins += [(fin, (root_x, root_y)), (_lower(fin), (root_x, -root_y))]
    for outline, root in fins:
        coverage = _filled(outline, shape, scale)
        rays = grain * (0.82 + 0.18 * np.cos(46 * np.arctan2(y - root[1], x - root[0])))
        away = smoothstep(np.hypot(x - root[0], y - root[1]), 0.15, 0.75)
        colour = _mix(_tone(_ORANGE, rays), _tone(_CREAM, rays), 0.15 + 0.65 * away)
        _lay(skin, coverage, colour * (0.72 + 0.2 * _dome(coverage, scale))[..., None])

    body = _filled(_whole(_BODY), shape, scale)
    dome = _dome(body, scale)
    patches = smoothstep(noise(rng, shape, 0.55 * scale, 4), 0.28, 0.36)
    # None on the head, where they would pass for eyes.
    spots = smoothstep(noise(rng, shape, 0.25 * scale, 4), 0.8, 0.86) * (1 - smoothstep(abs(x), 0.3, 0.45))
    scales = np.cos(x * 52 + y * 40) * np.cos(x * 52 - y * 40) * (1 - smoothstep(x, 0.45, 0.6))
    scaly = grain * (1 + 0.10 * scales)
    colour = _mix(_tone(_CREAM, scaly), _tone(_ORANGE, scaly), patches)
    colour = _mix(colour, _tone(_DARK, scaly), spots)
    colour *= ((0.42 + 0.6 * dome) * _relief(dome, 1.1))[..., None]
    colour += (0.22 * smoothstep(dome, 0.75, 1.0) * noise(rng, shape, 0.2 * scale))[..., None]
    _lay(skin, body, colour)
    dorsal = _filled(_whole(_DORSAL), shape, scale)
    _lay(skin, 0.7 * dorsal, _tone(_ORANGE, 0.66 + 0.08 * np.cos(x * 90)))
    for side in (1, -1):
        eye = np.hypot(x - 0.74, y - side * 0.255)
        _lay(skin, 0.8 * (1 - smoothstep(eye, 0.04, 0.058)), _tone((0.42, 0.27, 0.10), grain))
        _lay(skin, 1 - smoothstep(eye, 0.028, 0.04), _tone((0.04, 0.04, 0.04), grain))
    return skin


# ---------------------------------------------------------------- lily pads


def lay_lily_pad(
    surface: Image, rng: np.random.Generator, centre: tuple[float, float], radius: float, slit: float
) -> None:
    """Paint a lily pad onto `surface` [H,W,4], premultiplied; `slit`: the angle of its cut. All in pixels."""
    reach = math.ceil(radius * 1.25)
    x0, y0 = max(int(centre[0]) - reach, 0), max(int(centre[1]) - reach, 0)
    under = surface[y0 : int(centre[1]) + reach, x0 : int(centre[0]) + reach]
    shape = under.shape[0], under.shape[1]
    ys, xs = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x, y = xs + np.float32(x0 - centre[0]), ys + np.float32(y0 - centre[1])
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    waves = rng.uniform(0, 2 * math.pi, 2)
    rim = radius * (1 + 0.02 * np.cos(5 * angle + waves[0]) + 0.012 * np.cos(11 * angle + waves[1]))
    turn = np.abs((angle - slit + math.pi) % (2 * math.pi) - math.pi)
    past_slit = r * np.sin(np.minimum(turn, 1.5)) - 0.12 * (r - 0.3 * radius)
    coverage = np.asarray(np.clip(rim - r + 0.5, 0, 1) * np.clip(past_slit + 0.5, 0, 1), np.float32)

    off_vein = np.abs(np.sin(9 * (angle - slit))) * r / 9
    light = 0.62 + 0.5 * noise(rng, shape, 0.5 * radius, 6)
    light *= 1 + 0.12 * np.cos(18 * (angle - slit)) * np.clip(r / radius, 0, 1)
    light *= 1 - 0.2 * np.cos(angle - 0.8) * (r / radius) ** 2
    age = rng.uniform(0, 1)
    leaf = _tone((0.20 + 0.12 * age, 0.40 + 0.05 * age, 0.13), light)
    veins = 1 - smoothstep(off_vein, 0.3, 0.02 * radius)
    leaf = _mix(leaf, _tone((0.50, 0.62, 0.30), light), 0.55 * veins)
    leaf = _mix(leaf, _tone((0.42, 0.30, 0.14), light), 0.7 * smoothstep(r / rim, 0.955, 0.99))
    blight = smoothstep(noise(rng, shape, 0.3 * radius), 0.86, 0.95)
    leaf = _mix(leaf, _tone((0.48, 0.38, 0.15), light), 0.7 * blight)
    shadow = np.roll(coverage, (round(0.05 * radius), round(0.06 * radius)), (0, 1))
    under[..., :3] *= (1 - 0.55 * _blurred(shadow, 0.04 * radius))[..., None]
    _lay(under, coverage, leaf)
