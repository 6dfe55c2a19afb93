"""Encoded pictures to arrays and back. Knows files and pixels; nothing of sessions, models or transports."""

from service.imaging.frame import decode_frame
from service.imaging.header import ImageLimits
from service.imaging.mask import decode_mask, encode_mask, encode_probability

__all__ = ["ImageLimits", "decode_frame", "decode_mask", "encode_mask", "encode_probability"]
