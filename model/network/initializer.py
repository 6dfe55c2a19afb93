"""Initializer (eq. 1, section IV-A): the first frame and its mask to the first states of every memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import NetworkConfig
from model.network.encoders import build_encoder, xavier_conv


@dataclass(frozen=True)
class Started:
    """`memory`: (h0, c0) by stride. `value`: what attention reads of the first frame [B,V,h,w]."""

    memory: dict[int, tuple[Tensor, Tensor]]
    value: Tensor | None


class Initializer(nn.Module):
    """An encoder on 4 channels with weights of its own; two convolutions give h0 and c0 of the bottleneck,
    and up-sampling joined with its own skip features, then a convolution, those of each higher level."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.strides = [memory.stride for memory in config.memories] if config.recurrence == "convlstm" else []
        attention = config.attention
        # Mask guidance starts from the mask itself: there is nothing to initialise.
        self.encoder = build_encoder(config.encoder, image_channels=4) if self.strides else None
        channels = self.encoder.channels if self.encoder is not None else {32: 0}
        self.join = nn.ModuleDict()
        self.start = nn.ModuleDict()
        carried = channels[32]
        for memory in config.memories if self.strides else ():
            if memory.stride != 32:
                self.join[str(memory.stride)] = nn.Conv2d(carried + channels[memory.stride], memory.channels, 1)
                carried = memory.channels
            self.start[str(memory.stride)] = nn.Conv2d(carried, 2 * memory.channels, 3, padding=1)
        self.value_stride = attention.stride if attention else 0
        if attention:
            self.value = nn.Conv2d(channels[attention.stride], attention.value_channels, 1)
        for module in [*self.join.modules(), *self.start.modules(), *([self.value] if attention else [])]:
            if isinstance(module, nn.Conv2d):
                xavier_conv(module)

    def forward(self, frame: Tensor, mask: Tensor) -> Started:
        """frame [B,3,H,W] in 0..255, mask [B,1,H,W] in 0..1."""
        if self.encoder is None:
            return Started({}, None)
        features = self.encoder(torch.cat([frame, mask], dim=1))
        memory: dict[int, tuple[Tensor, Tensor]] = {}
        x = features[32]
        for stride in self.strides:
            if stride != 32:
                x = F.interpolate(x, size=features[stride].shape[-2:], mode="bilinear", align_corners=False)
                x = F.relu(self.join[str(stride)](torch.cat([x, features[stride]], dim=1)))
            h, c = self.start[str(stride)](x).chunk(2, dim=1)
            # Both begin where the cell itself can be: h in -1..1, c near it.
            memory[stride] = (torch.tanh(h), torch.tanh(c))
        return Started(memory, self.value(features[self.value_stride]) if self.value_stride else None)
