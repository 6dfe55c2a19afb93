"""Pictures that move over a canvas: what synthetic clips are drawn with."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from model.data.augment import shrink_for
from model.data.motion import Wobble

PAD = 4
CELL = 16
LONGEST_BLUR = 11
SHUTTER = 0.5
"""Share of the time between two frames that the shutter is open: how long a moving thing smears."""


@dataclass(frozen=True)
class CutOut:
    """An object cut out of a photo: `rgba_HW4` with a soft edge, and colours that go on a little beyond it.

    In the photo's pixels: `offset` (x, y) of the patch's first pixel, `centre` (x, y), `extent` (longer side)
    and `area`.
    """

    rgba_HW4: NDArray[np.uint8]
    offset: NDArray[np.float64]
    centre: NDArray[np.float64]
    extent: float
    area: float


def cut_out(photo_HWC: NDArray[np.uint8], mask_HW: NDArray[np.uint8]) -> CutOut:
    """Cut the object of a 0/1 mask out of a photo.

    The mask's outermost pixels often show the photo's background: they and the pixels outside get the colour
    of the nearby inside, so that no rim of the old surroundings moves along.
    """
    photo = cv2.copyMakeBorder(photo_HWC, PAD, PAD, PAD, PAD, cv2.BORDER_REPLICATE)
    mask = cv2.copyMakeBorder(mask_HW, PAD, PAD, PAD, PAD, cv2.BORDER_CONSTANT, value=0)
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    rows, columns = slice(ys[0] - PAD, ys[-1] + 1 + PAD), slice(xs[0] - PAD, xs[-1] + 1 + PAD)
    photo, mask = photo[rows, columns], np.ascontiguousarray(mask[rows, columns])
    eroded = np.asarray(cv2.erode(mask, np.ones((3, 3), np.uint8)), dtype=np.uint8)
    inside = eroded if eroded.any() else mask
    side = 2 * PAD + 3
    near = cv2.blur((photo * inside[..., None]).astype(np.float32), (side, side))
    weight = cv2.blur(inside.astype(np.float32), (side, side))
    colours = np.where(inside[..., None] > 0, photo, near / np.maximum(weight, 1e-6)[..., None])
    alpha = cv2.GaussianBlur(mask * np.uint8(255), (0, 0), 0.8)
    return CutOut(
        np.dstack([np.clip(colours, 0, 255).astype(np.uint8), np.asarray(alpha, dtype=np.uint8)]),
        offset=np.array([columns.start - PAD, rows.start - PAD], dtype=np.float64),
        centre=np.array([(xs[0] + xs[-1]) / 2 - PAD, (ys[0] + ys[-1]) / 2 - PAD]),
        extent=float(max(xs[-1] - xs[0], ys[-1] - ys[0]) + 1),
        area=float(mask.sum()),
    )


def without_object(photo_HWC: NDArray[np.uint8], mask_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photo with its object painted over: smooth colours from around it, fine texture from elsewhere."""
    hole = np.asarray(cv2.dilate(mask_HW, np.ones((7, 7), np.uint8)), dtype=np.uint8)
    height, width = hole.shape
    small = (max(width // 8, 1), max(height // 8, 1))
    known = (1 - hole).astype(np.float32)
    weight = cv2.resize(known, small, interpolation=cv2.INTER_AREA)
    colours = cv2.resize(photo_HWC * known[..., None], small, interpolation=cv2.INTER_AREA)
    spread = max(small) / 12
    # The small constant leaves the mean colour where nothing known is near.
    mean = colours.sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6)
    weight = cv2.GaussianBlur(weight, (0, 0), spread) + 1e-3
    smooth = (cv2.GaussianBlur(colours, (0, 0), spread) + 1e-3 * mean) / np.asarray(weight)[..., None]
    fill = np.asarray(cv2.resize(smooth.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR))
    rows, columns = min(_elsewhere(height, width), key=lambda place: int((hole & hole[place]).sum()))
    donor = photo_HWC[rows, columns].astype(np.float32)
    texture = (donor - cv2.blur(donor, (25, 25))) * known[rows, columns][..., None]
    blend = np.asarray(cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 2))[..., None]
    blend = np.maximum(blend, hole[..., None])
    painted = photo_HWC + blend * (fill + texture - photo_HWC)
    return np.asarray(np.clip(painted, 0, 255), dtype=np.uint8)


def _elsewhere(height: int, width: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Ways to look at another part of a picture, as row and column indices: mirrored, or half a side away."""
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    far_rows, far_columns = (rows + height // 2) % height, (columns + width // 2) % width
    mirrors = [(rows[::-1], columns), (rows, columns[:, ::-1]), (rows[::-1], columns[:, ::-1])]
    return [*mirrors, (far_rows, columns), (rows, far_columns), (far_rows, far_columns)]


def sample(
    picture: NDArray[np.uint8],
    to_canvas: NDArray[np.float64],
    wobble: Wobble | None,
    t: int,
    box: tuple[int, int, int, int],
    border: int,
) -> NDArray[np.uint8]:
    """Look at a picture through an affine map [3,3] (picture to canvas) and a wobble, within a canvas box.

    `box` is (top, bottom, left, right); the result has its size and the picture's channels.
    """
    top, bottom, left, right = box
    rows, columns = -(-(bottom - top) // CELL) + 2, -(-(right - left) // CELL) + 2
    # Where to look is worked out at the middles of coarse cells (one beyond each side) and interpolated.
    ys = top + (np.arange(rows) - 0.5) * CELL - 0.5
    xs = left + (np.arange(columns) - 0.5) * CELL - 0.5
    points = np.stack(np.meshgrid(xs, ys), axis=-1)
    back = np.linalg.inv(to_canvas)
    looks = points @ back[:2, :2].T + back[:2, 2]
    if wobble is not None:
        looks = looks + wobble.at(looks, t)
    fine = cv2.resize(looks.astype(np.float32), (columns * CELL, rows * CELL), interpolation=cv2.INTER_LINEAR)
    fine = fine[CELL : CELL + bottom - top, CELL : CELL + right - left]
    small, to_small = shrink_for(picture, to_canvas)
    fine = fine * to_small.diagonal()[:2].astype(np.float32) + to_small[:2, 2].astype(np.float32)
    seen = cv2.remap(small, np.ascontiguousarray(fine), None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore[call-overload]
    return np.asarray(seen, dtype=np.uint8)


def smear(picture: NDArray[np.uint8], velocity: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Motion blur along a velocity (x, y) in pixels per frame."""
    length = min(SHUTTER * float(np.linalg.norm(velocity)), LONGEST_BLUR - 2)
    if length < 1.5:
        return picture
    half = velocity / np.linalg.norm(velocity) * length / 2
    kernel = np.zeros((LONGEST_BLUR, LONGEST_BLUR), np.float32)
    taps = np.round(np.linspace(-half, half, LONGEST_BLUR) + LONGEST_BLUR // 2).astype(int)
    np.add.at(kernel, (taps[:, 1], taps[:, 0]), 1 / LONGEST_BLUR)
    return np.asarray(cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REPLICATE), dtype=np.uint8)


@dataclass(frozen=True)
class Layer:
    """A cut-out on its way over the canvas: `path_T33` maps the pixels of its photo to the canvas."""

    thing: CutOut
    path_T33: NDArray[np.float64]
    wobble: Wobble | None
    blurred: bool

    def centre(self, t: int) -> NDArray[np.float64]:
        """Where the middle of the cut-out is at frame t: (x, y) on the canvas."""
        return np.asarray(self.path_T33[t, :2] @ np.append(self.thing.centre, 1.0))

    def velocity(self, t: int) -> NDArray[np.float64]:
        """Canvas pixels per frame at frame t."""
        before, after = max(t - 1, 0), min(t + 1, len(self.path_T33) - 1)
        return (self.centre(after) - self.centre(before)) / max(after - before, 1)

    def look(self, t: int, size: tuple[int, int]) -> tuple[tuple[slice, slice], NDArray[np.uint8]] | None:
        """The canvas region that the cut-out reaches at frame t and its RGBA there; None if out of sight."""
        to_canvas = self.path_T33[t].copy()
        to_canvas[:2, 2] += to_canvas[:2, :2] @ self.thing.offset
        height, width = self.thing.rgba_HW4.shape[:2]
        reach = self.wobble.reach if self.wobble else 0.0
        xs, ys = np.array([-reach, width + reach]), np.array([-reach, height + reach])
        corners = np.array([(x, y) for x in xs for y in ys]) @ to_canvas[:2, :2].T + to_canvas[:2, 2]
        margin = LONGEST_BLUR if self.blurred else 1
        low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - margin, 0)
        high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + margin, (size[1], size[0]))
        if (low >= high).any():
            return None
        box = (int(low[1]), int(high[1]), int(low[0]), int(high[0]))
        seen = sample(self.thing.rgba_HW4, to_canvas, self.wobble, t, box, cv2.BORDER_CONSTANT)
        seen = smear(seen, self.velocity(t)) if self.blurred else seen
        return (slice(box[0], box[1]), slice(box[2], box[3])), seen
