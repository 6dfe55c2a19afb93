"""A checkpoint follows objects through frames with torch: what `s2spp evaluate --checkpoint` scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from model.follow import Window, as_batch, moved_state
from model.network import S2Spp
from model.refine import refine
from s2spp.geometry import frame_to_model, mask_to_model, merge_to_frame, model_size

Image = NDArray[np.uint8]
Way = Literal["plain", "refined", "following"]
"""How masks come out of a network: as it gives them; with edges refined at the frame's own resolution (model.refine);
or through a window that follows each object (model.follow)."""


def track(network: S2Spp, frames: Iterable[Image], first_labels: Image, way: Way = "plain") -> Iterator[Image]:
    """frames RGB [H,W,3], the labels [H,W] of the first -> labels of every frame, the given ones first."""
    height, width = first_labels.shape
    ids = [int(i) for i in np.unique(first_labels) if i]
    frames, shown = tee(frames)
    if way == "following":
        masks = [(first_labels == i).astype(np.uint8) for i in ids]
        each = tee(frames, len(ids))
        found = zip(*(_through_window(network, own, mask) for own, mask in zip(each, masks, strict=True)), strict=True)
        probabilities: Iterator[NDArray[np.float32]] = (np.stack(rows) for rows in found)
    else:
        probabilities = _whole(network, frames, first_labels, ids)
    if next(shown, None) is not None:
        yield first_labels
    for frame, probability in zip(shown, probabilities, strict=True):
        if way == "refined":
            probability = np.stack([refine(row, frame) for row in probability])
        yield merge_to_frame(probability, ids, height, width)[0]


@torch.no_grad()
def _whole(network: S2Spp, frames: Iterable[Image], labels: Image, ids: list[int]) -> Iterator[NDArray[np.float32]]:
    """Probabilities [N,h',w'] of the second frame and of every later one."""
    size = _grid(network, labels)
    state = None
    for frame in frames:
        one = as_batch(frame_to_model(frame, size))
        features = {s: f.expand(len(ids), -1, -1, -1) for s, f in network.encode(one).items()}
        if state is None:
            masks = np.stack([mask_to_model((labels == i).astype(np.uint8), size) for i in ids])
            each = one.expand(len(ids), -1, -1, -1)
            state = network.initialise(each, torch.from_numpy(masks)[:, None].float(), features)
            continue
        output, state = network.recur(features, state)
        yield torch.sigmoid(output.logits)[:, 0].numpy()


@torch.no_grad()
def _through_window(network: S2Spp, frames: Iterable[Image], mask: Image) -> Iterator[NDArray[np.float32]]:
    """Probabilities [H,W] of one object in the second frame and in every later one."""
    grid = _grid(network, mask)
    window = Window.around(mask, grid)
    state = None
    for frame in frames:
        one = as_batch(window.crop(frame) if window.zoom < 1 else frame_to_model(frame, grid))
        if state is None:
            seen = mask_to_model(mask, grid) if window.zoom == 1 else _seen(window, mask)
            state = network.initialise(one, torch.from_numpy(seen)[None, None].float(), network.encode(one))
            continue
        output, state = network.step(one, state)
        probability = window.back(torch.sigmoid(output.logits)[0, 0].numpy())
        steps = window.steps_to((probability > 0.5).astype(np.uint8))
        window, state = window.moved(steps), moved_state(state, steps, grid)
        yield probability


def _grid(network: S2Spp, mask: Image) -> tuple[int, int]:
    height, width = mask.shape
    return model_size(height, width, network.config.pixel_budget, network.config.multiple)


def _seen(window: Window, mask: Image) -> Image:
    """A 0/1 mask as the window shows it."""
    return (window.crop(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))[..., 0] > 127).astype(np.uint8)
