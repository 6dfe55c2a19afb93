"""What a machine does with 8-bit numbers: its speed at one convolution, and int8 beside float, step by step."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from s2spp.benchmark.material import Material
from s2spp.geometry import frame_to_model, mask_to_model, model_size
from service.core.ports import Runtime
from service.core.state import State

_PROBE = Path(__file__).with_name("int8_conv.onnx")
_PROBE_RUNS = 200


@dataclass(frozen=True)
class Precisions:
    """Medians of the bare step, one frame with one object, taken in turns. `ratio`: float's time in int8's."""

    float_bundle: str
    int8_bundle: str
    float_ms: float
    int8_ms: float
    ratio: float

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def int8_conv_gops(threads: int) -> float:
    """Multiplications and additions a second, in 10^9, of a 3x3 convolution of 128 channels in 8 bits."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(_PROBE), options, providers=["CPUExecutionProvider"])
    (shape,) = (value.shape for value in session.get_inputs())
    _, channels, height, width = shape
    x = np.full(shape, 130, np.uint8)
    times = []
    for _ in range(_PROBE_RUNS):
        started = time.perf_counter()
        session.run(None, {"x": x})
        times.append(time.perf_counter() - started)
    return float(2 * 9 * channels * channels * height * width / np.median(times) / 1e9)


def compare_precisions(floats: Runtime, int8: Runtime, material: Material, seconds: float) -> Precisions:
    """Both runtimes step through the same frames in turns, so that a busy moment meets both."""
    height, width = material.size
    mask = material.mask(1)
    runs: list[tuple[Runtime, State, list[float]]] = []
    for runtime in (floats, int8):
        size = model_size(height, width, runtime.info.pixel_budget, runtime.info.multiple)
        first = frame_to_model(material.frames[0], size)
        (state,) = runtime.initialise([first], [mask_to_model(mask, size)[None]])
        runs.append((runtime, state, []))
    until, index = time.perf_counter() + seconds, 0
    while index < 20 or time.perf_counter() < until:
        index += 1
        for place, (runtime, state, times) in enumerate(runs):
            size = model_size(height, width, runtime.info.pixel_budget, runtime.info.multiple)
            frame = frame_to_model(material.frames[material.turn(index)], size)
            (result,) = runtime.step([frame], [state])
            runs[place] = (runtime, result.state, times)
            if index > 3:
                times.append(result.compute_ms)
    float_ms, int8_ms = (float(np.median(times)) for _, _, times in runs)
    return Precisions(floats.info.name, int8.info.name, float_ms, int8_ms, float_ms / int8_ms)
