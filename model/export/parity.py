"""Golden parity: a bundle's graphs against torch, or against another bundle's, over a whole clip, at batch 1 and at
batch 5 with mixed frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.export.graphs import STATE_DTYPE, rows
from model.export.halves import ENCODE, RECUR, STEP
from model.export.int8_attention import has_products, products_in_float
from model.network import RecurrentState, S2Spp

States = dict[str, NDArray[Any]]
# frames, masks, frame_row -> the first states, and the probabilities: see run_onnx.
Run = Callable[[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]], tuple[States, NDArray[np.float32]]]

# Float16 states round differently once two runtimes differ in the last bit, so equality is not to be had. These
# hold with a wide margin for a right export and fail at once for a wrong one.
MAX_STATE = 0.02
MAX_PROBABILITY = 0.05
MAX_PIXELS = 0.001
_FRAMES = 12


@dataclass(frozen=True)
class Parity:
    """Worst over all frames: absolute difference of probability, share of pixels that change sides of 0.5. `state`:
    the worst difference of a first state, as a share of its largest value. Each is nan where one is no number."""

    batch: int
    frames: int
    state: float
    probability: float
    pixels: float

    @property
    def holds(self) -> bool:
        return self.state <= MAX_STATE and self.probability <= MAX_PROBABILITY and self.pixels <= MAX_PIXELS


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


def open_graphs(folder: Path, *, exact: bool = False) -> tuple[ort.InferenceSession, ort.InferenceSession]:
    """(init, step) of a bundle on the CPU, as it is served. `exact`: what is in 8 bits is worked out in float, which no
    processor gets wrong."""
    # 8-bit weights for float arithmetic, as an int8 bundle's init graph has them, are unpacked once.
    return _opened(folder / "init.onnx", in_float=True), _opened(folder / STEP, in_float=exact)


def halves_off(folder: Path, feed: Mapping[str, NDArray[Any]], probability: NDArray[np.float32]) -> float:
    """How far both halves of a step are off from it, at most: the step gives `probability` for `feed`, exactly."""
    encode, recur = (_opened(folder / name, in_float=True) for name in (ENCODE, RECUR))
    features = encode.run(None, {"frame": feed["frame"]})
    given = dict(zip((value.name for value in encode.get_outputs()), features, strict=True)) | dict(feed)
    found = recur.run(["probability"], {value.name: given[value.name] for value in recur.get_inputs()})[0]
    return float(np.abs(found - probability).max())


def _opened(path: Path, *, in_float: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    graph: Path | bytes = path
    if in_float:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        if has_products(onnx.load(path, load_external_data=False).graph):
            model = onnx.load(path)
            products_in_float(model.graph)
            graph = model.SerializeToString()
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def check_parity(network: S2Spp, folder: Path) -> list[Parity]:
    """The bundle against torch."""
    return _compare(folder, partial(run_torch, network), network.config.multiple)


def compare_bundles(folder: Path, other: Path, multiple: int) -> list[Parity]:
    """One bundle against another of the same network."""
    return _compare(folder, partial(run_onnx, *open_graphs(other)), multiple)


def _compare(folder: Path, expect: Run, multiple: int) -> list[Parity]:
    """Runs a clip through both, for one object and for five objects on three frames."""
    graphs, results = open_graphs(folder), []
    for frame_row in (np.array([0], np.int64), np.array([0, 2, 1, 0, 2], np.int64)):
        clips = [parity_clip(_FRAMES, (4 * multiple, 7 * multiple), seed) for seed in range(int(frame_row.max()) + 1)]
        frames = np.stack([pictures for pictures, _ in clips], axis=1)
        masks = np.stack([np.roll(clips[row][1], 6 * n, axis=1) for n, row in enumerate(frame_row)])
        start, ours = run_onnx(*graphs, frames, masks, frame_row)
        expected_start, expected = expect(frames, masks, frame_row)
        states = [_relative(start[name], expected_start[name]) for name in start]
        results.append(
            Parity(
                batch=len(frame_row),
                frames=_FRAMES,
                state=float(np.max(states)),
                probability=float(np.abs(ours - expected).max()),
                pixels=float(((ours > 0.5) != (expected > 0.5)).mean(axis=(1, 2, 3)).max()),
            )
        )
    return results


def _relative(ours: NDArray[Any], expected: NDArray[Any]) -> np.float32:
    """Largest difference as a share of the largest value. (Of float states: bytes have a zero point.)"""
    a, b = ours.astype(np.float32), expected.astype(np.float32)
    largest: np.float32 = np.abs(a - b).max() / np.maximum(np.abs(b).max(), 1e-6)
    return largest


def run_onnx(
    init: ort.InferenceSession,
    step: ort.InferenceSession,
    frames: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    frame_row: NDArray[np.int64],
) -> tuple[States, NDArray[np.float32]]:
    """frames [T,F,H,W,3], masks [N,H,W] -> the first states, and the probabilities of frames 1..T-1, [T-1,N,h,w]."""
    names = [value.name for value in init.get_outputs()]
    changing = [value.name.removeprefix("next_") for value in step.get_outputs()[1:]]
    start = dict(zip(names, init.run(None, {"frame": frames[0], "mask": masks, "frame_row": frame_row}), strict=True))
    state, probabilities = dict(start), []
    for frame in frames[1:]:
        probability, *nexts = step.run(None, {"frame": frame, "frame_row": frame_row, **state})
        state |= dict(zip(changing, nexts, strict=True))
        probabilities.append(probability)
    return start, np.stack(probabilities)


@torch.no_grad()
def run_torch(
    network: S2Spp, frames: NDArray[np.uint8], masks: NDArray[np.uint8], frame_row: NDArray[np.int64]
) -> tuple[States, NDArray[np.float32]]:
    """The same in torch."""
    index = torch.from_numpy(frame_row)
    image = _image(frames[0])
    first = torch.from_numpy(masks)[:, None].float()
    features = rows(network.encode(image), index)
    state = _as_served(network.initialise(image.index_select(0, index), first, features))
    start = {name: t.to(STATE_DTYPE).numpy() for name, t in (state.changing | state.constant).items()}
    probabilities = []
    for frame in frames[1:]:
        output, new = network.recur(rows(network.encode(_image(frame)), index), state)
        state = _as_served(new)
        probabilities.append(torch.sigmoid(output.logits)[:, 0].numpy())
    return start, np.stack(probabilities)


def _image(frames: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float()


def _as_served(state: RecurrentState) -> RecurrentState:
    """Round the state the way it crosses the graph's boundary."""

    def rounded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(STATE_DTYPE).float() for name, tensor in tensors.items()}

    return RecurrentState(rounded(state.changing), rounded(state.constant))
