"""A live camera at twice the rate that the machine can do: what is answered is fresh, and every drop is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2spp.embedded import EmbeddedServer
from service.client import Client
from service.core.errors import FrameDropped, S2sppError
from service.core.types import Flow
from tests.chaos.material import Story

_SECONDS = 10.0
_WARM_UP = 30


@dataclass(frozen=True)
class Live:
    """`rate`: answered frames per second. `p95_s`: from the camera's shutter to the mask. `told`: drops that the caller
    heard of; `sent`: frames in all; `answered`: masks."""

    rate: float
    p95_s: float
    sent: int
    answered: int
    told: int

    @property
    def problem(self) -> str:
        if self.sent != self.answered + self.told:
            return f"{self.sent} frames, but {self.answered} masks and {self.told} drops told"
        if self.told == 0:
            return "nothing was dropped: it was not too fast for this machine"
        if self.p95_s >= 3 / self.rate:
            return f"p95 is {self.p95_s * 1e3:.0f} ms, {self.p95_s * self.rate:.1f} frame times of the achieved rate"
        return ""

    def __str__(self) -> str:
        return (
            f"{self.rate:.0f} masks/s, p95 {self.p95_s * 1e3:.0f} ms ({self.p95_s * self.rate:.1f} frame times), "
            f"{self.told} of {self.sent} frames dropped and told"
        )


def live(folder: Path, bundle: str | None, tale: Story) -> Live:
    with EmbeddedServer(folder, bundle) as server, Client(server.grpc) as client:
        began = time.monotonic()
        count = sum(1 for _ in client.track(tale.jpegs[:200], tale.labels))
        rate = 2 * count / (time.monotonic() - began)
        taken_at: dict[int, float] = {}

        def camera() -> Iterator[bytes]:
            """Frames at fixed times; one that is asked for too late is of the time it is asked for."""
            next_at = time.monotonic()
            for index in range(round(rate * _SECONDS)):
                next_at = max(next_at + 1 / rate, time.monotonic() - 1 / rate)
                time.sleep(max(0.0, next_at - time.monotonic()))
                taken_at[index] = time.monotonic()
                yield tale.jpegs[index % len(tale.jpegs)]

        told: list[int] = []

        def on_error(index: int, error: S2sppError) -> None:
            if not isinstance(error, FrameDropped):
                raise error
            told.append(index)

        latencies: list[float] = []
        began = time.monotonic()
        results = client.track(camera(), tale.labels, flow=Flow.REALTIME, on_frame_error=on_error)
        for result in results:
            latencies.append(time.monotonic() - taken_at[result.frame_index])
        took = time.monotonic() - began
    p95 = float(np.percentile(latencies[_WARM_UP:], 95))
    return Live(len(latencies) / took, p95, len(taken_at), len(latencies), len(told))
