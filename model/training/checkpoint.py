"""Checkpoints that carry their configuration: everything needed to go on, or to export."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import NetworkConfig
from model.network import S2Spp
from model.training.config import TrainConfig


@dataclass(frozen=True)
class Checkpoint:
    """`weights`: what is trained; `averaged`: their moving average, which is what is exported when there is
    one."""

    network: NetworkConfig
    train: TrainConfig
    step: int
    weights: dict[str, Tensor]
    averaged: dict[str, Tensor] | None
    loss_weights: dict[str, Tensor]
    optimizer: dict[str, Any]

    def save(self, path: Path) -> None:
        """Written beside and renamed, so that a run killed while saving keeps its former checkpoint."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        fields = dict(vars(self), network=self.network.to_dict(), train=self.train.to_dict())
        torch.save(fields, partial)
        os.replace(partial, path)

    @staticmethod
    def load(path: Path) -> Checkpoint:
        """Raises OSError for a file that cannot be read, or ValueError for one that is not such a checkpoint."""
        try:
            data = torch.load(path, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:
            # torch's own words are advice to its programmers, and how to read files that may run code.
            raise ValueError(
                f"{path} is not an s2spp checkpoint, or a damaged one: `s2spp train` writes them, OUT/checkpoint.pt"
            ) from error
        try:
            return Checkpoint(
                **{
                    **data,
                    "network": NetworkConfig.from_dict(data["network"]),
                    "train": TrainConfig.from_dict(data["train"]),
                }
            )
        except Exception as error:
            raise ValueError(f"{path} is not an s2spp checkpoint, or one of another version ({error!r})") from error

    def model(self) -> S2Spp:
        """The network in evaluation mode, with the averaged weights where there are any. ValueError where they are of
        an earlier version of the network."""
        network = S2Spp(self.network)
        try:
            network.load_state_dict(self.averaged or self.weights)
        except RuntimeError as error:
            raise ValueError(f"this checkpoint is of an earlier version, whose layers were others: {error}") from error
        return network.eval()
