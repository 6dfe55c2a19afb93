"""A checkpoint follows objects through frames with torch: what `s2spp evaluate --checkpoint` scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.follow import Window, moved_state
from model.network import RecurrentState, S2Spp
from model.refine import refine
from s2spp.geometry import frame_to_model, mask_to_model, merge_to_frame, model_size

Image = NDArray[np.uint8]
Probability = NDArray[np.float32]
Way = Literal["plain", "refined", "following"]
"""How masks come out of a network: as it gives them; with edges refined at the frame's own resolution (model.refine);
or through a window that follows each object (model.follow)."""


def track(network: S2Spp, frames: Iterable[Image], first_labels: Image, way: Way = "plain") -> Iterator[Image]:
    """frames RGB [H,W,3], the labels [H,W] of the first -> labels of every frame, the given ones first."""
    height, width = first_labels.shape
    ids = [int(i) for i in np.unique(first_labels) if i]
    masks = [(first_labels == i).astype(np.uint8) for i in ids]
    follower: _Whole | _Windows | None = None
    for frame in frames:
        if follower is None:
            follower = _Windows(network, frame, masks) if way == "following" else _Whole(network, frame, masks)
            yield first_labels
            continue
        probability = follower.step(frame)
        if way == "refined":
            probability = [refine(row, frame) for row in probability]
        yield merge_to_frame(np.stack(probability), ids, height, width).labels


class _Whole:
    """All objects in the whole frame, which is encoded once."""

    @torch.no_grad()
    def __init__(self, network: S2Spp, frame: Image, masks: list[Image]) -> None:
        self.network, self.count, self.grid = network, len(masks), _grid(network, frame)
        one = self._batch(frame)
        given = torch.from_numpy(np.stack([mask_to_model(mask, self.grid) for mask in masks]))[:, None].float()
        each = one.expand(self.count, -1, -1, -1)
        self.state = network.initialise(each, given, self._features(one))

    @torch.no_grad()
    def step(self, frame: Image) -> list[Probability]:
        """frame RGB [H,W,3] -> each object's probability [h,w]."""
        output, self.state = self.network.recur(self._features(self._batch(frame)), self.state)
        return list(torch.sigmoid(output.logits)[:, 0].numpy())

    def _batch(self, frame: Image) -> Tensor:
        return _batch(frame_to_model(frame, self.grid))

    def _features(self, one: Tensor) -> dict[str, Tensor]:
        return {name: f.expand(self.count, -1, -1, -1) for name, f in self.network.encode(one).items()}


class _Windows:
    """Each object through a window of its own."""

    def __init__(self, network: S2Spp, frame: Image, masks: list[Image]) -> None:
        self.objects = [_Windowed(network, frame, mask) for mask in masks]

    def step(self, frame: Image) -> list[Probability]:
        """frame RGB [H,W,3] -> each object's probability [H,W]."""
        return [one.step(frame) for one in self.objects]


class _Windowed:
    @torch.no_grad()
    def __init__(self, network: S2Spp, frame: Image, mask: Image) -> None:
        self.network = network
        self.window = Window.around(mask, _grid(network, frame))
        one = _batch(self.window.frame_seen(frame))
        given = torch.from_numpy(self.window.mask_seen(mask))[None, None].float()
        self.state: RecurrentState = network.initialise(one, given, network.encode(one))

    @torch.no_grad()
    def step(self, frame: Image) -> Probability:
        output, state = self.network.step(_batch(self.window.frame_seen(frame)), self.state)
        probability = self.window.back(torch.sigmoid(output.logits)[0, 0].numpy())
        steps = self.window.steps_to((probability > 0.5).astype(np.uint8))
        self.window, self.state = self.window.moved(steps), moved_state(state, steps, self.window.grid)
        return probability


def _grid(network: S2Spp, frame: Image) -> tuple[int, int]:
    height, width = frame.shape[:2]
    return model_size(height, width, network.config.pixel_budget, network.config.multiple)


def _batch(image: Image) -> Tensor:
    """[h,w,3] -> [1,3,h,w]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()
