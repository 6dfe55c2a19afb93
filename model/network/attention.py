"""Attention from the current frame to a remembered one: the paper's future work, with constant memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Attention to a cell that is this much less alike than the best one: e^-40, which float32 rounds away beside it.
FAR_BELOW = 40.0


class FrameAttention(nn.Module):
    """Every cell of the current frame reads the remembered frame's values where its key looks alike.

    `local`: a learned penalty on squared displacement, so that between neighbouring frames a cell prefers to
    look nearby; a look-alike across the picture then does not win. Displacements are in cells. (The penalty is the
    parameter itself: of a function of it, an exported graph would hold the result only.)"""

    def __init__(self, key_channels: int, local: bool) -> None:
        super().__init__()
        self.scale = key_channels**-0.5
        self.locality = nn.Parameter(torch.tensor(0.05)) if local else None

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query, key [B,K,h,w], value [B,V,h,w] -> [B,V,h,w]."""
        batch, _, height, width = query.shape
        similarity = torch.matmul(query.flatten(2).transpose(1, 2), key.flatten(2)) * self.scale
        if self.locality is not None:
            similarity = similarity - self.locality * _squared_distance(height, width, query)
        # Left to fall to where softmax gives denormal numbers, they made the product below 15 times slower on Intel's
        # processors, and a whole int8 step 4 times. No sum changes, to float32's precision.
        similarity = torch.maximum(similarity, similarity.amax(dim=-1, keepdim=True) - FAR_BELOW)
        read = torch.matmul(value.flatten(2), similarity.softmax(dim=-1).transpose(1, 2))
        return read.reshape(batch, -1, height, width)


def _squared_distance(height: int, width: int, like: Tensor) -> Tensor:
    """[h*w, h*w]: squared distance between every two cells of the grid."""
    y = torch.arange(height, device=like.device, dtype=torch.float32)
    x = torch.arange(width, device=like.device, dtype=torch.float32)
    dy = (y[:, None] - y[None, :]) ** 2
    dx = (x[:, None] - x[None, :]) ** 2
    return (dy[:, None, :, None] + dx[None, :, None, :]).reshape(height * width, height * width)
