"""Batches of the deterministic stream as tensors; the distance targets are made in the loader's process."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.config import NetworkConfig
from model.data.clip import ClipSource
from model.data.read import DataError
from model.data.stream import ClipBatch, ClipStream, GrowingLength, StreamConfig
from model.training.config import Stage, TrainConfig
from model.training.distance import distance_target
from s2spp.geometry import mask_to_model


@dataclass(frozen=True)
class TensorBatch:
    """frames [B,T,3,H,W] uint8; masks [B,T-1,H,W] uint8 and distances [B,T-1,h,w] of frames 1..T-1;
    first_masks [B,1,H,W] uint8."""

    frames: Tensor
    first_masks: Tensor
    masks: Tensor
    distances: Tensor | None

    def to(self, device: torch.device) -> TensorBatch:
        return TensorBatch(
            self.frames.to(device, non_blocking=True),
            self.first_masks.to(device, non_blocking=True),
            self.masks.to(device, non_blocking=True),
            None if self.distances is None else self.distances.to(device, non_blocking=True),
        )


class _StageBatches(Dataset[TensorBatch | DataError]):
    """Map-style over the steps of one stage: batch number in, batch out; or what is wrong with a file, as a value
    (raised in a loader's process, it would come out as that process's traceback)."""

    def __init__(self, stage: Stage, stream: ClipStream, network: NetworkConfig) -> None:
        self.stage, self.stream, self.network = stage, stream, network

    def __len__(self) -> int:
        return self.stage.steps

    def __getitem__(self, step: int) -> TensorBatch | DataError:
        try:
            return to_tensors(self.stream.batch(step), self.network)
        except DataError as error:
            return error


def to_tensors(batch: ClipBatch, network: NetworkConfig) -> TensorBatch:
    return TensorBatch(
        torch.from_numpy(batch.frames_BTHWC).permute(0, 1, 4, 2, 3),
        torch.from_numpy(batch.first_masks_BHW)[:, None],
        torch.from_numpy(batch.masks_BTHW[:, 1:]),
        _distance_targets(batch, network),
    )


def _distance_targets(batch: ClipBatch, network: NetworkConfig) -> Tensor | None:
    distance = network.distance
    if distance is None:
        return None
    height, width = (side // network.head_stride for side in batch.masks_BTHW.shape[2:])
    clips = [
        np.stack([distance_target(mask_to_model(mask, (height, width)), distance) for mask in clip[1:]])
        for clip in batch.masks_BTHW
    ]
    return torch.from_numpy(np.stack(clips))


def batches(
    train: TrainConfig, network: NetworkConfig, root: Path, first_step: int, rank: int, workers: int
) -> Iterator[tuple[int, Stage, TensorBatch]]:
    """(step, its stage, its batch) from `first_step` to the end of the last stage. A pure function of the
    configuration, the rank and the step, so a resumed run continues the identical curve. Raises DataError: at the first
    step for a data set that any stage still to come lacks, later for a file that cannot be used."""
    # Loaders are many processes already. Told before they are forked: a pool of threads that a child has inherited
    # has no threads there, and OpenCV waits for them for ever.
    cv2.setNumThreads(1)
    for start, stage, stream in _streams(train, root, first_step, rank):
        steps = range(max(first_step - start, 0), stage.steps)
        loader = DataLoader(
            _StageBatches(stage, stream, network),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            prefetch_factor=3 if workers else None,
        )
        for step, batch in zip(steps, loader, strict=True):
            if isinstance(batch, DataError):
                raise batch
            yield start + step, stage, batch


def _streams(train: TrainConfig, root: Path, first_step: int, rank: int) -> list[tuple[int, Stage, ClipStream]]:
    """(first step, stage, its clips) of every stage that is not over by `first_step`."""
    found = []
    start = 0
    # Opening a folder of photos reads every mask in it: once for all stages.
    opened: dict[Hashable, ClipSource] = {}
    for number, stage in enumerate(train.stages):
        if first_step < start + stage.steps:
            for source in stage.sources:
                if source.place not in opened:
                    opened[source.place] = source.open(root)
            config = StreamConfig(
                sources=tuple((opened[source.place], source.weight) for source in stage.sources),
                batch=stage.batch,
                seed=train.seed * 1000 + number * 100 + rank,
                size=stage.size,
                length=GrowingLength(stage.first_length + stage.gap, stage.last_length + stage.gap, stage.steps),
                corrupt_odds=train.first_mask_noise,
                absence_odds=train.absence,
            )
            found.append((start, stage, ClipStream(config)))
        start += stage.steps
    return found
