"""Encoded pictures to arrays and back. Knows files and pixels; nothing of sessions, models or transports."""

from service.imaging.frame import decode_frame
from service.imaging.growing_file import GrowingFile
from service.imaging.header import ImageLimits
from service.imaging.mask import decode_mask, encode_mask, encode_probability
from service.imaging.video import VideoLimits, VideoReader

__all__ = [
    "GrowingFile",
    "ImageLimits",
    "VideoLimits",
    "VideoReader",
    "decode_frame",
    "decode_mask",
    "encode_mask",
    "encode_probability",
]
