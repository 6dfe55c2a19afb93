"""States on a device: whether its masks are the CPU's, frames a second by batch beside the device's matrix peak, and
what crosses the bus. Needs the training extra (torch), and the onnxruntime of the provider.

python -m tests.bench.device                                    on a GPU, with s2spp-light
python -m tests.bench.device --provider cpu --frames 20         the same code without one
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from model.config import NetworkConfig
from model.metrics import jaccard
from model.network import S2Spp
from s2spp.benchmark.material import Material
from service.core.types import ImageU8
from service.runtime import Bundle, DeviceRuntime, OnnxRuntime, load_bundle
from service.runtime.pool import Copier, DeviceRows

_ROUNDS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="append", help="folder or name; may be given several times")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--batches", type=lambda text: [int(each) for each in text.split(",")], default=[1, 4, 16, 32])
    parser.add_argument("--frames", type=int, default=300, help="of the comparison with the CPU")
    asked = parser.parse_args()
    peak = matrix_peak(asked.provider)
    print(
        f"matrix peak: {peak / 1e12:.1f} TFLOP/s ({'float16' if asked.provider == 'cuda' else 'float32'}, 4096 x 4096)"
    )
    for name in asked.bundle or ["s2spp-light"]:
        bundle = load_bundle(name)
        print(f"\n{bundle.name}")
        began = time.perf_counter()
        device = DeviceRuntime(bundle, max_batch=max(asked.batches), provider=asked.provider)
        device.warm_up()
        print(f"loaded and warmed up in {time.perf_counter() - began:.1f} s")
        clip = Material.rendered().for_model(device.info)
        frames, mask = list(clip.frames), clip.masks(1)
        compare(device, OnnxRuntime(bundle), [clip.frame(index) for index in range(asked.frames + 1)], mask)
        flops = step_flops(bundle, clip.size)
        for batch in asked.batches:
            rate(device, frames, mask, batch, flops, peak)
        moved(device, frames, mask)


def matrix_peak(provider: str) -> float:
    """FLOP/s of one large product, the best of some."""
    on, kind = ("cuda", torch.float16) if provider == "cuda" else ("cpu", torch.float32)
    side, best = 4096, 0.0
    a = torch.randn(side, side, dtype=kind, device=on)
    for _ in range(10 if on == "cuda" else 3):
        began = time.perf_counter()
        for _ in range(10 if on == "cuda" else 1):
            a @ a
        if on == "cuda":
            torch.cuda.synchronize()
        best = max(best, (10 if on == "cuda" else 1) * 2 * side**3 / (time.perf_counter() - began))
    return best


@torch.no_grad()
def step_flops(bundle: Bundle, size: tuple[int, int]) -> float:
    """Of one step of one object; 2 for each multiplication with its addition."""
    config = NetworkConfig.from_dict(json.loads((Path(bundle.folder) / "manifest.json").read_text())["network"])
    network = S2Spp(config).eval()
    image = torch.zeros(1, 3, *size)
    state = network.initialise(image, image[:, :1], network.encode(image))
    with FlopCounterMode(display=False) as counter:
        network.recur(network.encode(image), state)
    return float(counter.get_total_flops())


def compare(device: DeviceRuntime, cpu: OnnxRuntime, frames: list[ImageU8], mask: NDArray[np.uint8]) -> None:
    states = [runtime.initialise([frames[0]], [mask])[0] for runtime in (device, cpu)]
    off, agreed = [], []
    for frame in frames[1:]:
        masks = []
        for place, runtime in enumerate((device, cpu)):
            (result,) = runtime.step([frame], [states[place]])
            states[place] = result.state
            masks.append(result.probability[0] > 0.5)
        off.append(float((masks[0] != masks[1]).mean()))
        agreed.append(jaccard(*masks))
    print(f"against the CPU, {len(off)} frames: at most {max(off):.4%} of pixels differ, J {np.mean(agreed):.5f}")


def rate(
    device: DeviceRuntime, frames: list[ImageU8], mask: NDArray[np.uint8], batch: int, flops: float, peak: float
) -> None:
    states, times = device.initialise([frames[0]] * batch, [mask] * batch), []
    for index in range(1, _ROUNDS + 4):
        results = device.step([frames[index % len(frames)]] * batch, states)
        states = [result.state for result in results]
        times.append(results[0].compute_ms)
    ms = float(np.median(times[3:]))
    fps = batch / ms * 1e3
    print(f"batch {batch:3}: {ms:8.2f} ms, {fps:8.1f} frames/s, {fps * flops / peak:6.1%} of the matrix peak")


def moved(device: DeviceRuntime, frames: list[ImageU8], mask: NDArray[np.uint8]) -> None:
    """Counted where arrays are handed over; rows' numbers, a few bytes, are not."""
    seen: Counter[str] = Counter()
    put, tensors = Copier.put, DeviceRows.tensors

    def count_put(self: Copier, tensor: NDArray[np.generic]) -> object:
        seen["state to the device"] += tensor.nbytes if tensor.dtype == np.float16 else 0
        return put(self, tensor)

    def count_tensors(self: DeviceRows) -> object:
        seen["state from the device"] += self.nbytes
        return tensors(self)

    Copier.put, DeviceRows.tensors = count_put, count_tensors  # type: ignore[method-assign, assignment]
    try:
        (state,) = device.initialise([frames[0]], [mask])
        for frame in frames[1:]:
            (result,) = device.step([frame], [state])
            state = result.state
            seen["pixels to the device"] += frame.nbytes
            seen["probability from the device"] += result.probability.nbytes
    finally:
        Copier.put, DeviceRows.tensors = put, tensors  # type: ignore[method-assign]
    for what in ("pixels to the device", "state to the device", "state from the device", "probability from the device"):
        print(f"{what}: {seen[what] / len(frames[1:]) / 1e3:.1f} kB a frame")


if __name__ == "__main__":
    main()
