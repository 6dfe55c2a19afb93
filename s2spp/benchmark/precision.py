"""What a machine does with 8-bit numbers: its speed at one convolution, and int8 beside float, step by step."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from s2spp.benchmark.material import Material
from s2spp.benchmark.result import Precisions
from service.core.ports import Runtime

_PROBE = Path(__file__).with_name("int8_conv.onnx")
_PROBE_RUNS = 200


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
    runtimes = (floats, int8)
    played = [material.for_model(runtime.info) for runtime in runtimes]
    states = [
        runtime.initialise([own.frame(0)], [own.masks(1)])[0] for runtime, own in zip(runtimes, played, strict=True)
    ]
    times: tuple[list[float], list[float]] = ([], [])
    until, index = time.perf_counter() + seconds, 0
    while index < 20 or time.perf_counter() < until:
        index += 1
        for place, runtime in enumerate(runtimes):
            (result,) = runtime.step([played[place].frame(index)], [states[place]])
            states[place] = result.state
            if index > 3:
                times[place].append(result.compute_ms)
    float_ms, int8_ms = (float(np.median(each)) for each in times)
    return Precisions(floats.info.name, int8.info.name, float_ms, int8_ms)
