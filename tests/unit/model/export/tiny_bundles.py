"""Checkpoints to export: random weights of tiny networks."""

from __future__ import annotations

from dataclasses import replace

import torch

from model.config import DistanceConfig, MemoryConfig, NetworkConfig
from model.export import ExportReport
from model.export.bundle import Card
from model.network import S2Spp
from model.training.checkpoint import Checkpoint
from model.training.config import TRAIN_RECIPES

TINY_VGG = ((6, 1), (8, 1), (12, 1), (16, 1), (16, 1))
CARD = Card("photos of nothing", "none", {"tune/J": 0.5})
Exported = tuple[Checkpoint, ExportReport]


def tiny(**changes: object) -> NetworkConfig:
    config = NetworkConfig(
        encoder="vgg16",
        memories=(MemoryConfig(32, 12, 3), MemoryConfig(16, 8, 3)),
        decoder=(16, 12, 8),
        decoder_kernel=3,
        distance=DistanceConfig(10, 1),
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def checkpoint_of(config: NetworkConfig) -> Checkpoint:
    """Random weights, loud enough for masks that are neither empty nor full."""
    torch.manual_seed(0)
    network = S2Spp(config)
    with torch.no_grad():
        network.head.mask.weight.mul_(4)
        for name, parameter in network.named_parameters():
            # All zero at first: the exporter would make one tensor of them.
            if name.endswith("bias"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    train = TRAIN_RECIPES["smoke"]()
    return Checkpoint(config, train, 7, network.state_dict(), None, {}, {})
