"""Resizing of frames and masks: the one place of this package that decides how."""

import cv2
import numpy as np
from numpy.typing import NDArray


def resize_frame(frame_HWC: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an [H,W,3] frame to `size` = (height, width); averages areas when shrinking to half or less."""
    height, width = size
    if frame_HWC.shape[:2] == size:
        return frame_HWC
    halved = frame_HWC.shape[0] >= 2 * height or frame_HWC.shape[1] >= 2 * width
    how = cv2.INTER_AREA if halved else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame_HWC, (width, height), interpolation=how), dtype=np.uint8)


def resize_mask(mask_HW: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize a 0/1 mask to `size` = (height, width): a pixel is set where half of its area or more was.

    An object never vanishes: where no pixel reaches one half, the densest one stands for it.
    """
    height, width = size
    if mask_HW.shape == size:
        return mask_HW
    shrinks = mask_HW.shape[0] > height or mask_HW.shape[1] > width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    share = cv2.resize(mask_HW.astype(np.float32), (width, height), interpolation=how)
    resized = (share >= 0.5).astype(np.uint8)
    if not resized.any() and mask_HW.any():
        resized.flat[int(share.argmax())] = 1
    return resized
