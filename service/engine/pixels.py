"""What the engine does to pixels, as plain functions for its threads: no session, no waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from s2spp.geometry import Merged, frame_to_model, mask_to_model, merge_to_frame, model_size, to_frame
from service.core.errors import InvalidImage, InvalidMask
from service.core.types import Answer, EncodedImage, ImageU8, MaskFormat, ModelInfo, ObjectReport
from service.engine.limits import EngineLimits
from service.imaging import ImageLimits, decode_frame, decode_mask, encode_mask, encode_probability

VISIBLE_PROBABILITY = 0.995
"""The rule: an object is visible if the most probable of its pixels has at least this probability.

A tracker often leaves a few pixels, or a patch, where an object was. Nothing depends on the size of the object or of
the frame, so a tiny object counts if the model is sure of it. Chosen on the `tune` videos, cropped and with occluders
pasted in, as what finds most absences (by F1) while at most one in a thousand of the frames in which the object is
followed is called empty; docs/RESULTS.md has the figures."""


@dataclass(frozen=True)
class Opening:
    """A first frame and its mask on the model's grid: `frame` [h,w,3], `masks` [N,h,w] (0/1) in the order of
    `object_ids`. `height`, `width`: the frame's own."""

    height: int
    width: int
    object_ids: tuple[int, ...]
    frame: ImageU8
    masks: NDArray[np.uint8]


def read_opening(
    frame: EncodedImage, mask: EncodedImage, model: ModelInfo, limits: EngineLimits, as_object: int | None = None
) -> Opening:
    """`as_object`: all that the mask marks is this one object. Raises InvalidInput: an unusable picture, a mask of
    another size, an empty one, or too many objects."""
    pixels, labels = decode_frame(frame, limits.images), decode_mask(mask, limits.images)
    if as_object is not None:
        labels = np.where(labels > 0, np.uint8(as_object), np.uint8(0))
    height, width = pixels.shape[:2]
    if labels.shape != (height, width):
        raise InvalidMask(
            f"the mask is {labels.shape[1]} x {labels.shape[0]} but its frame is {width} x {height} "
            "(width x height); send both in one size"
        )
    object_ids = tuple(int(value) for value in np.flatnonzero(np.bincount(labels.ravel())) if value)
    if not object_ids:
        raise InvalidMask("the mask is empty: every pixel is background; mark the object to follow")
    if len(object_ids) > limits.max_objects:
        raise InvalidMask(
            f"the mask has {len(object_ids)} objects; at most {limits.max_objects} are taken (S2SPP_MAX_OBJECTS)"
        )
    size = model_size(height, width, model.pixel_budget, model.multiple)
    masks = [mask_to_model((labels == object_id).astype(np.uint8), size) for object_id in object_ids]
    return Opening(height, width, object_ids, frame_to_model(pixels, size), np.stack(masks))


def read_frame(image: EncodedImage, limits: ImageLimits, frame_size: tuple[int, int], size: tuple[int, int]) -> ImageU8:
    """The frame on the model's grid `size`. Raises InvalidInput, also for one that is not of `frame_size`."""
    pixels = decode_frame(image, limits)
    height, width = frame_size
    if pixels.shape[:2] != frame_size:
        raise InvalidImage(
            f"the frame is {pixels.shape[1]} x {pixels.shape[0]} but the session's are {width} x {height} "
            "(width x height); resize it, or open another session",
            height=height,
            width=width,
        )
    return frame_to_model(pixels, size)


def make_answer(
    frame_index: int,
    probability: NDArray[np.float32],
    object_ids: Sequence[int],
    frame_size: tuple[int, int],
    mask_format: MaskFormat,
    compute_ms: float,
) -> Answer:
    """Per-object `probability` [N,h',w'] -> merged and encoded mask of `frame_size`, with its reports."""
    merged = merge_to_frame(probability, object_ids, *frame_size)
    if mask_format is MaskFormat.PROBABILITY:
        mask = encode_probability(to_frame(plane, *frame_size) for plane in probability)
    else:
        mask = encode_mask(merged.labels, mask_format, object_ids)
    return Answer(
        frame_index=frame_index,
        mask=mask,
        mask_format=mask_format,
        height=frame_size[0],
        width=frame_size[1],
        objects=tuple(_report(object_id, merged) for object_id in object_ids),
        compute_ms=compute_ms,
    )


def _report(object_id: int, merged: Merged) -> ObjectReport:
    rows, columns = merged.box
    inside = merged.labels[merged.box] == object_id
    x, y, width, height = cv2.boundingRect(inside.view(np.uint8)) if inside.size else (0, 0, 0, 0)
    if not width:
        return ObjectReport(object_id, 0, (0, 0, 0, 0), 0.0, False)
    own = np.s_[y : y + height, x : x + width]
    values = merged.best[own][inside[own]]
    return ObjectReport(
        object_id,
        area=int(values.size),
        box=(columns.start + x, rows.start + y, width, height),
        confidence=float(values.sum(dtype=np.float64) / values.size),
        visible=float(values.max()) >= VISIBLE_PROBABILITY,
    )
