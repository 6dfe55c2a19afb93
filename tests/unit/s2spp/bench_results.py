"""Made-up results of `s2spp bench`."""

from __future__ import annotations

from s2spp.benchmark.result import LiveRow, Memory, PartsRow, Result, Run, StartRow, StoreRow, StoreSection

RAW_FPS = {1: 100.0, 3: 60.0}
SHARES = {"raw": 1.0, "engine": 0.7, "grpc": 0.6, "ws": 0.59, "rest": 0.4}


def made_up(
    speed: float = 1.0, shares: dict[str, float] | None = None, swing: float = 0.0, ms_swing: float = 0.0
) -> Result:
    """`speed`: of the machine. `shares`: of the raw model's rate, those that differ. `swing`, `ms_swing`: how far rates
    and latencies of a path's slices stray from the middle one."""
    runs = []
    for objects, raw_fps in RAW_FPS.items():
        for sessions in (1, 4):
            for path, share in (SHARES | (shares or {})).items():
                fps = speed * raw_fps * share
                ms = 1e3 * sessions / fps
                slices = [
                    _strayed(fps, 0.0 if path == "raw" else swing),
                    _strayed(ms, 0.0 if path == "raw" else ms_swing),
                ]
                runs.append(Run(path, "tiny", sessions, objects, 8, fps, ms, 1.5 * ms, 0.3 * ms, *slices, count=90))
    machine = {"cpu": "A Processor", "cores": 2, "system": "Linux-1", "python": "3.12.1", "time": "2024-05-06T07:08:09"}
    frames = [500, *range(1000, 10_001, 1000)]
    memory = Memory(frames, [230.0 + 0.0375 * place for place in range(len(frames))])
    rows = [
        StoreRow("commit", 1, 40, 4.25, 9.75, 348_100, 351_200),
        StoreRow("resume", 3, 10, 12.5, 20.5, 1.4e6, 1.5e6),
    ]
    store = StoreSection("ext4", 3, rows)
    start = [StartRow("s2spp serve", 5, 1.82)]
    live = [LiveRow(1, 90, 10.0, 18.0, 20.0), LiveRow(8, 700, 70.0, 60.0, 95.0)]
    parts = [PartsRow("grpc", 90, 17.5, 1.25, 14.0, 0.5, 0.75, 1.0)]
    return Result(machine, runs, memory, None, store, "sha256:1", "s2spp bench --seconds 3", start, parts, live)


def _strayed(middle: float, swing: float) -> list[float]:
    return [middle * (1 - swing), middle, middle * (1 + swing)]
