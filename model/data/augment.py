"""Augmentation with the same parameters for every frame of a clip (section IV-E), and worn first masks."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

LUMA = np.array([0.299, 0.587, 0.114])
GREY = (127.0, 127.0, 127.0)
"""What is shown where there is no picture."""


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the augmentation. Odds are probabilities; angles in degrees; shifts as shares of the side."""

    flip_odds: float = 0.5
    affine_odds: float = 0.8
    rotation_deg: float = 20.0
    shift: float = 0.1
    scale: tuple[float, float] = (0.75, 1.25)
    shear_deg: float = 10.0
    colour_odds: float = 0.8
    brightness: float = 0.15
    contrast: float = 0.25
    saturation: float = 0.4
    hue_deg: float = 12.0
    grey_odds: float = 0.05


def random_affine(size: tuple[int, int], rng: np.random.Generator, config: AugmentConfig) -> NDArray[np.float64]:
    """Draw a flip and an affine map about the centre of an (H, W) canvas: [3,3]."""
    height, width = size
    flip = rng.random() < config.flip_odds
    warp = rng.random() < config.affine_odds
    angle = np.deg2rad(rng.uniform(-config.rotation_deg, config.rotation_deg)) * warp
    shear = np.tan(np.deg2rad(rng.uniform(-config.shear_deg, config.shear_deg))) * warp
    shift = rng.uniform(-config.shift, config.shift, 2) * (width, height) * warp
    scale = rng.uniform(*config.scale) if warp else 1.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = scale * rotation @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix[:2, 2] = centre + shift - matrix[:2, :2] @ centre
    return matrix


def warp_frame(frame_HWC: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Show a frame on a canvas of `size` (h, w) through a map [3,3] of its pixels to the canvas'. Beyond the frame is
    grey: a mirrored or smeared border would show pieces of the object that no mask knows."""
    return _warp(frame_HWC, matrix, size, GREY)


def warp_mask(mask_HW: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The same of a 0/1 mask: canvas pixels that are at least half object."""
    return (_warp(mask_HW * np.uint8(255), matrix, size, (0.0,)) >= 128).astype(np.uint8)


def _warp(
    picture: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int], border: tuple[float, ...]
) -> NDArray[np.uint8]:
    small, to_small = shrink_for(picture, matrix)
    onto = matrix @ np.linalg.inv(to_small)
    warped = cv2.warpAffine(small, onto[:2], (size[1], size[0]), flags=cv2.INTER_LINEAR, borderValue=border)
    return np.asarray(warped, dtype=np.uint8)


def shrink_for(
    picture: NDArray[np.uint8], matrix: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """What to sample linearly so that `matrix` [3,3] shrinks without skipping pixels: the picture, its areas averaged
    by a whole factor where the map shrinks by two or more, and the map [3,3] of its pixels to that."""
    factor = int(1 / max(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))), 1e-3))
    if factor < 2:
        return picture, np.eye(3)
    height, width = picture.shape[:2]
    shape = (max(1, round(height / factor)), max(1, round(width / factor)))
    small = cv2.resize(picture, shape[::-1], interpolation=cv2.INTER_AREA)
    scale = np.array([shape[1] / width, shape[0] / height])
    to_small = np.diag([*scale, 1.0])
    # Pixel centres keep their places.
    to_small[:2, 2] = (scale - 1) / 2
    return np.asarray(small, dtype=np.uint8), to_small


def random_colour(rng: np.random.Generator, config: AugmentConfig) -> NDArray[np.float64] | None:
    """Draw a change of brightness, contrast, saturation and hue as ONE affine map of RGB: [3,4], or None."""
    if rng.random() >= config.colour_odds:
        return None
    gain = 1 + rng.uniform(-config.contrast, config.contrast)
    offset = 255 * rng.uniform(-config.brightness, config.brightness) + 128 * (1 - gain)
    saturation = 1 + rng.uniform(-config.saturation, config.saturation)
    if rng.random() < config.grey_odds:
        saturation = 0.0
    hue = np.deg2rad(rng.uniform(-config.hue_deg, config.hue_deg))
    # A rotation about the grey axis (Rodrigues) changes the hue and leaves greys alone.
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation = np.eye(3) + np.sin(hue) * cross + (1 - np.cos(hue)) * cross @ cross
    grey = np.tile(LUMA, (3, 1))
    mix = gain * (saturation * np.eye(3) + (1 - saturation) * grey) @ rotation
    return np.column_stack([mix, np.full(3, offset)])


def recolour(frame_HWC: NDArray[np.uint8], colour: NDArray[np.float64] | None) -> NDArray[np.uint8]:
    """Apply an affine map of RGB, clipped to 0..255."""
    return frame_HWC if colour is None else np.asarray(cv2.transform(frame_HWC, colour), dtype=np.uint8)


def corrupt_mask(mask_HW: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make a 0/1 mask slightly wrong, as a hurried hand would: grown, shrunk, shifted or a polygon.

    How far grows with the object's own size. The result is never empty: what would be, stays as it was.
    """
    reach = max(1.0, 0.08 * float(np.sqrt(mask_HW.sum())))
    kind = rng.integers(4)
    if kind == 0:
        worn = cv2.dilate(mask_HW, _disc(rng.uniform(1, reach)))
    elif kind == 1:
        worn = cv2.erode(mask_HW, _disc(rng.uniform(1, reach)))
    elif kind == 2:
        shift = np.eye(3)
        shift[:2, 2] = rng.uniform(-reach, reach, 2)
        worn = warp_mask(mask_HW, shift, (mask_HW.shape[0], mask_HW.shape[1]))
    else:
        outlines, _ = cv2.findContours(mask_HW, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        tolerance = rng.uniform(0.5, 1) * reach
        polygons = [cv2.approxPolyDP(outline, tolerance, True) for outline in outlines]
        worn = cv2.fillPoly(np.zeros_like(mask_HW), polygons, 1)
    return np.asarray(worn, dtype=np.uint8) if np.any(worn) else mask_HW


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * round(radius) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)
