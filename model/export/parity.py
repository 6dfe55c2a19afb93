"""Golden parity: the ONNX files against torch, over a whole clip, at batch 1 and at batch 5 with mixed frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.export.graphs import STATE_DTYPE
from model.network import RecurrentState, S2Spp

# Float16 states round differently once two runtimes differ in the last bit, so equality is not to be had. These hold
# with a wide margin for a right export and fail at once for a wrong one.
MAX_PROBABILITY = 0.05
MAX_PIXELS = 0.001


@dataclass(frozen=True)
class Parity:
    """Worst over all frames: absolute difference of probability, share of pixels that change sides of 0.5."""

    batch: int
    frames: int
    probability: float
    pixels: float

    @property
    def holds(self) -> bool:
        return self.probability <= MAX_PROBABILITY and self.pixels <= MAX_PIXELS


def parity_clip(frames: int, size: tuple[int, int], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Textured blob over a textured ground, moving: frames [T,H,W,3] and the first mask [H,W]."""
    rng = np.random.default_rng(seed)
    height, width = size
    ground = cv2.resize(rng.integers(0, 255, (12, 20, 3), np.uint8), (width + 64, height))
    skin = cv2.resize(rng.integers(0, 255, (9, 9, 3), np.uint8), (width, height))
    pictures, first = [], np.zeros(size, np.uint8)
    for t in range(frames):
        mask = np.zeros(size, np.uint8)
        centre = (width // 3 + 5 * t, height // 2 + int(8 * np.sin(t / 2)))
        cv2.ellipse(mask, centre, (width // 8, height // 5), 10 * t, 0, 360, 1, -1)
        first = mask if t == 0 else first
        picture = ground[:, 3 * t : 3 * t + width].copy()
        picture[mask > 0] = np.roll(skin, 5 * t, axis=1)[mask > 0]
        pictures.append(picture)
    return np.stack(pictures), first


def check_parity(network: S2Spp, folder: Path, states: tuple[str, ...], changing: int) -> list[Parity]:
    """`states`: all names, the first `changing` of which change. Runs a clip of 12 frames each."""
    size = (network.config.multiple * 4, network.config.multiple * 7)
    return [
        _run(network, folder, states, changing, rows, size)
        for rows in (np.array([0], np.int64), np.array([0, 2, 1, 0, 2], np.int64))
    ]


@torch.no_grad()
def _run(
    network: S2Spp,
    folder: Path,
    states: tuple[str, ...],
    changing: int,
    rows: NDArray[np.int64],
    size: tuple[int, int],
    frames: int = 12,
) -> Parity:
    clips = [parity_clip(frames, size, seed) for seed in range(int(rows.max()) + 1)]
    masks = np.stack([np.roll(clips[row][1], 6 * n, axis=1) for n, row in enumerate(rows)])
    init, step = (ort.InferenceSession(str(folder / f"{name}.onnx")) for name in ("init", "step"))
    at = [np.stack([clip[0][t] for clip in clips]) for t in range(frames)]
    ours = dict(zip(states, init.run(None, {"frame": at[0], "mask": masks, "frame_row": rows}), strict=True))
    index = torch.from_numpy(rows)

    def images(t: int) -> Tensor:
        return torch.from_numpy(at[t]).permute(0, 3, 1, 2).float().index_select(0, index)

    state = _as_served(
        network.initialise(images(0), torch.from_numpy(masks)[:, None].float(), network.encode(images(0)))
    )
    worst_probability, worst_pixels = 0.0, 0.0
    for t in range(1, frames):
        got, *nexts = step.run(None, {"frame": at[t], "frame_row": rows, **ours})
        ours |= dict(zip(states[:changing], nexts, strict=True))
        output, state = network.step(images(t), state)
        state = _as_served(state)
        expected = torch.sigmoid(output.logits)[:, 0].numpy()
        worst_probability = max(worst_probability, float(np.abs(got - expected).max()))
        worst_pixels = max(worst_pixels, float(((got > 0.5) != (expected > 0.5)).mean()))
    return Parity(len(rows), frames, worst_probability, worst_pixels)


def _as_served(state: RecurrentState) -> RecurrentState:
    """Round the state the way it crosses the graph's boundary."""
    return RecurrentState(
        {name: tensor.to(STATE_DTYPE).float() for name, tensor in state.changing.items()},
        {name: tensor.to(STATE_DTYPE).float() for name, tensor in state.constant.items()},
    )
