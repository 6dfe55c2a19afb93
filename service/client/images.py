"""Pixels on the caller's side: frames and first masks on their way out, label maps on their way in."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from s2spp import rle
from s2spp.v1 import segmentation_pb2 as pb
from service.core.errors import InvalidImage, InvalidMask, InvalidOption
from service.core.types import LabelMap, ObjectReport


class DecodedFrame(Protocol):
    """What PyAV decodes: an `av.VideoFrame`. Turned if it says so."""

    @property
    def rotation(self) -> int: ...

    def to_ndarray(self, *, format: str) -> NDArray[Any]: ...


FrameLike = NDArray[np.uint8] | bytes | Path | str | Image.Image | DecodedFrame
"""RGB uint8 [H,W,3] (OpenCV reads BGR: give frame[..., ::-1]); the bytes of a JPEG, PNG or WebP file, or its path; a
Pillow image; or an `av.VideoFrame`."""
MaskLike = NDArray[np.uint8] | NDArray[np.bool_] | bytes | Path | str | Image.Image
"""Object ids [H,W]; an indexed or grey PNG file's bytes, or its path; or such a Pillow image. Bool, or grey of only 0
and 255, is object 1."""


def frame_message(frame: FrameLike, jpeg_quality: int | None) -> pb.Image:
    """As `put_frame`, by itself."""
    image = pb.Image()
    put_frame(image, frame, jpeg_quality)
    return image


def put_frame(image: pb.Image, frame: FrameLike, jpeg_quality: int | None) -> None:
    """Into the place of a message where it belongs: put there as a message of its own it is copied, level by level.
    A file's bytes travel as they are, pixels raw and so losslessly unless `jpeg_quality` is given.

    Raises:
        InvalidImage: nothing that FrameLike names.
        InvalidOption: the quality is not between 1 and 100.
        OSError: the file cannot be read.
    """
    if isinstance(frame, Path | str):
        frame = Path(frame).read_bytes()
    if isinstance(frame, bytes):
        image.data = frame
        return
    if isinstance(frame, Image.Image):
        if frame.mode.startswith(("I", "F")):
            raise InvalidImage(f"a Pillow image of mode {frame.mode} has no colours of 8 bit; give the file itself")
        frame = np.asarray(ImageOps.exif_transpose(frame).convert("RGB"))
    elif not isinstance(frame, np.ndarray) and hasattr(frame, "to_ndarray"):
        # Whole quarter turns, counter-clockwise, as the video's container says.
        frame = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.shape[2:] != (3,):
        raise InvalidImage(
            "a frame is an RGB uint8 array [H,W,3], an image file's bytes or path, a Pillow image or a PyAV frame, "
            f"not {_describe(frame)}"
        )
    if jpeg_quality is None:
        image.data, image.format = frame.tobytes(), pb.IMAGE_FORMAT_RAW_RGB8
        image.height, image.width = frame.shape[:2]
        return
    if not 1 <= jpeg_quality <= 100:
        raise InvalidOption(f"jpeg_quality is 1 to 100, not {jpeg_quality}")
    flags = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    image.data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), flags)[1].tobytes()


def mask_message(mask: MaskLike) -> pb.Image:
    """A file's bytes travel as they are, an array as a grey PNG.

    Raises:
        InvalidMask: an array that is no label map, or has no pixels, which no file can hold.
    """
    mask = _opened(mask)
    if isinstance(mask, bytes):
        return pb.Image(data=mask)
    labels = labels_of(mask)
    if labels.size == 0:
        raise InvalidMask(f"the mask has no pixels: {labels.shape[0]} x {labels.shape[1]}")
    return pb.Image(data=cv2.imencode(".png", labels)[1].tobytes())


def labels_of(mask: MaskLike) -> LabelMap:
    """The label map that a first mask means, by the server's own rules.

    Raises:
        InvalidMask: not a label map of ids 0..255.
        OSError: the file cannot be read.
    """
    mask = _opened(mask)
    if isinstance(mask, bytes):
        return _labels_of_file(mask)
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype.kind not in "bui":
        raise InvalidMask(
            f"a mask is an array [H,W] of object ids, or a PNG file's bytes or path, not {_describe(mask)}"
        )
    return _object_ids(mask, 1 if mask.dtype == np.bool_ else 255)


def labels_from(mask: pb.Mask) -> LabelMap:
    """The label map uint8 [H,W] of an answer that is no probabilities (those: see `labels_of_planes`)."""
    if mask.format == pb.MASK_FORMAT_RAW:
        return np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.width).copy()
    if mask.format == pb.MASK_FORMAT_RLE:
        labels = np.zeros((mask.height, mask.width), np.uint8)
        for one in json.loads(mask.data):
            labels[rle.decode(one["counts"], mask.height, mask.width)] = one["object_id"]
        return labels
    # Pillow, since OpenCV gives an indexed PNG's colours and not its indices.
    with Image.open(io.BytesIO(mask.data)) as image:
        return np.array(image, np.uint8)


def probability_from(mask: pb.Mask) -> NDArray[np.uint8] | None:
    """Each object's probability in 1/255, [N,H,W] in the order of its reports; None where the answer has none."""
    if mask.format != pb.MASK_FORMAT_PROBABILITY:
        return None
    planes = cv2.imdecode(np.frombuffer(mask.data, np.uint8), cv2.IMREAD_UNCHANGED)
    return np.asarray(planes, np.uint8).reshape(len(mask.objects), mask.height, mask.width)


def labels_of_planes(planes: NDArray[np.uint8], object_ids: Sequence[int]) -> LabelMap:
    """The most probable object of each pixel of [N,H,W], among those above one half; the first of equals."""
    labels = np.zeros(planes.shape[1:], np.uint8)
    best = np.full(labels.shape, 127, np.uint8)
    for object_id, plane in zip(object_ids, planes, strict=True):
        labels[plane > best] = object_id
        np.maximum(best, plane, out=best)
    return labels


def reports_of(labels: LabelMap, object_ids: Sequence[int]) -> tuple[ObjectReport, ...]:
    """Area and box of each object of a mask that is certain, a first one."""
    return tuple(ObjectReport.certain(object_id, labels == object_id) for object_id in object_ids)


def _opened(mask: MaskLike) -> NDArray[np.uint8] | NDArray[np.bool_] | bytes:
    if isinstance(mask, Path | str):
        return Path(mask).read_bytes()
    if isinstance(mask, Image.Image):
        if mask.mode not in ("P", "L", "1"):
            raise InvalidMask(f"a mask is an indexed, grey or black-and-white picture, not one of mode {mask.mode}")
        return np.asarray(ImageOps.exif_transpose(mask))
    return mask


def _labels_of_file(data: bytes) -> LabelMap:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            turn = image.getexif().get(ExifTags.Base.Orientation, 1)
            # Palette indices are the ids themselves. Elsewhere OpenCV, since Pillow cuts 16-bit colours to 8.
            indices = np.array(image, np.uint8) if image.mode == "P" else None
    except UnidentifiedImageError as error:
        raise InvalidMask("the mask is not a PNG file; send an indexed or grey PNG of object ids") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidMask(f"the mask cannot be read as a PNG file: {error}") from error
    upright = Image.fromarray(_ids_of_grey(data) if indices is None else indices)
    upright.getexif()[ExifTags.Base.Orientation] = turn
    return np.array(ImageOps.exif_transpose(upright))


def _ids_of_grey(data: bytes) -> LabelMap:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise InvalidMask("the mask cannot be read: the file is damaged")
    if values.ndim == 3:
        if any((values[..., channel] != values[..., 0]).any() for channel in (1, 2)):
            raise InvalidMask("the mask is a colour picture; save it as an indexed PNG of the object ids")
        values = values[..., 0]
    return _object_ids(values, 65535 if values.dtype == np.uint16 else 255)


def _object_ids(values: NDArray[Any], white: int) -> LabelMap:
    """Nothing but 0 and `white` is object 1; other values are the ids."""
    if np.isin(values, (0, white)).all():
        return np.asarray(values == white, np.uint8)
    if not 0 <= values.min() <= values.max() <= 255:
        raise InvalidMask(f"object ids are 0 to 255, the mask has {values.min()} to {values.max()}")
    return values.astype(np.uint8)


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return type(value).__name__
