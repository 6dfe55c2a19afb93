"""A checkpoint follows objects through frames with torch: what `s2spp evaluate --checkpoint` scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from model.network import S2Spp
from s2spp.geometry import frame_to_model, mask_to_model, merge_to_frame, model_size

Image = NDArray[np.uint8]


@torch.no_grad()
def track(network: S2Spp, frames: Iterable[Image], first_labels: Image) -> Iterator[Image]:
    """frames RGB [H,W,3], the labels [H,W] of the first -> labels of every frame, the given ones first."""
    height, width = first_labels.shape
    size = model_size(height, width, network.config.pixel_budget, network.config.multiple)
    ids = [int(i) for i in np.unique(first_labels) if i]
    state = None
    for frame in frames:
        one = torch.from_numpy(frame_to_model(frame, size)).permute(2, 0, 1)[None].float()
        features = {s: f.expand(len(ids), -1, -1, -1) for s, f in network.encode(one).items()}
        if state is None:
            masks = np.stack([mask_to_model((first_labels == i).astype(np.uint8), size) for i in ids])
            each = one.expand(len(ids), -1, -1, -1)
            state = network.initialise(each, torch.from_numpy(masks)[:, None].float(), features)
            yield first_labels
            continue
        output, state = network.recur(features, state)
        probability = torch.sigmoid(output.logits)[:, 0].numpy()
        yield merge_to_frame(probability, ids, height, width)[0]
