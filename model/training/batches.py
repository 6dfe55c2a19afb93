"""Batches of the deterministic stream as tensors, with the distance targets made in the loader's process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.config import NetworkConfig
from model.data.stream import ClipBatch, ClipStream, GrowingLength, StreamConfig
from model.training.config import Stage, TrainConfig
from model.training.distance import distance_classes, signed_distance
from s2spp.geometry import mask_to_model


@dataclass(frozen=True)
class TensorBatch:
    """frames [B,T,3,H,W] uint8; masks [B,T-1,H,W] uint8 and distances [B,T-1,h,w] of frames 1..T-1;
    first_masks [B,1,H,W] uint8."""

    frames: Tensor
    first_masks: Tensor
    masks: Tensor
    distances: Tensor | None


class _StageBatches(Dataset[TensorBatch]):
    """Map-style over the steps of one stage: batch number in, batch out."""

    def __init__(self, stage: Stage, stream: ClipStream, network: NetworkConfig) -> None:
        self.stage, self.stream, self.network = stage, stream, network

    def __len__(self) -> int:
        return self.stage.steps

    def __getitem__(self, step: int) -> TensorBatch:
        cv2.setNumThreads(1)
        return to_tensors(self.stream.batch(step), self.network)


def to_tensors(batch: ClipBatch, network: NetworkConfig) -> TensorBatch:
    distance = network.distance
    targets: Tensor | None = None
    if distance is not None:
        height, width = (side // network.output_stride for side in batch.masks_BTHW.shape[2:])
        make = distance_classes if distance.kind == "classes" else None
        targets = torch.from_numpy(
            np.stack(
                [
                    np.stack(
                        [
                            make(mask_to_model(mask, (height, width)), distance)
                            if make
                            else signed_distance(mask_to_model(mask, (height, width)), distance.radius)
                            for mask in clip[1:]
                        ]
                    )
                    for clip in batch.masks_BTHW
                ]
            )
        )
    return TensorBatch(
        torch.from_numpy(batch.frames_BTHWC).permute(0, 1, 4, 2, 3),
        torch.from_numpy(batch.first_masks_BHW)[:, None],
        torch.from_numpy(batch.masks_BTHW[:, 1:]),
        targets,
    )


def batches(
    train: TrainConfig, network: NetworkConfig, root: Path, first_step: int, rank: int, workers: int
) -> Iterator[tuple[int, Stage, TensorBatch]]:
    """(step, its stage, its batch) from `first_step` to the end of the last stage. A pure function of the
    configuration, the rank and the step, so a resumed run continues the identical curve."""
    start = 0
    for number, stage in enumerate(train.stages):
        if first_step < start + stage.steps:
            stream = ClipStream(
                StreamConfig(
                    sources=tuple((source.open(root), source.weight) for source in stage.sources),
                    batch=stage.batch,
                    seed=train.seed * 1000 + number * 100 + rank,
                    size=stage.size,
                    length=GrowingLength(stage.first_length, stage.last_length, stage.steps),
                    corrupt_odds=train.first_mask_noise,
                )
            )
            steps = range(max(first_step - start, 0), stage.steps)
            loader = DataLoader(
                _StageBatches(stage, stream, network),
                batch_size=None,
                sampler=steps,
                num_workers=workers,
                prefetch_factor=3 if workers else None,
            )
            for step, batch in zip(steps, loader, strict=True):
                yield start + step, stage, batch
        start += stage.steps
