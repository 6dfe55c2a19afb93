"""Settings of the tiny training problems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from model.config import DistanceConfig, MemoryConfig, NetworkConfig
from model.training.config import SourceConfig, Stage, TrainConfig
from model.training.loop import RunOptions
from model.training.losses import LossConfig

TINY_VGG = ((6, 1), (8, 1), (12, 1), (16, 1), (16, 1))


def tiny_network() -> NetworkConfig:
    return NetworkConfig(
        encoder="vgg16",
        memories=(MemoryConfig(32, 12, 3), MemoryConfig(16, 8, 3)),
        decoder=(16, 12, 8, 8),
        decoder_kernel=3,
        cell="tanh",
        distance=DistanceConfig(10, 1),
        previous_mask=True,
    )


def tiny_train(steps: tuple[int, ...] = (3, 3), **changes: Any) -> TrainConfig:
    """A stage for each number of steps: one thing changes from stage to stage, the frame's size."""
    sources = (SourceConfig("stills", "stills/shapes", 1.0),)
    stages = tuple(
        Stage(count, (64, 96 - 32 * (number % 2)), 3, 4, 2, 3e-3, sources) for number, count in enumerate(steps)
    )
    start = TrainConfig(
        network="tiny",
        stages=stages,
        loss=LossConfig(bce=0.6, jaccard=0.4, distance=0.1, learned_weights=True),
        warmup=2,
        ema=0.9,
        first_mask_noise=0.3,
        precision="32-true",
    )
    return replace(start, **changes)


def options(data: Path, out: Path, **changes: Any) -> RunOptions:
    return replace(RunOptions(data=data, out=out, workers=0), **changes)
