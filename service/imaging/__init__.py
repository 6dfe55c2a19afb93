"""Encoded pictures to arrays and back. Knows files and pixels; nothing of sessions, models or transports.

video.py is apart: it loads FFmpeg, which a worker has no use for."""

from service.imaging.frame import decode_frame
from service.imaging.growing_file import GrowingFile
from service.imaging.header import ImageLimits
from service.imaging.mask import decode_mask, encode_mask, encode_probability

__all__ = [
    "GrowingFile",
    "ImageLimits",
    "decode_frame",
    "decode_mask",
    "encode_mask",
    "encode_probability",
]
