"""The picture of one result: frames a second against sessions, a panel for each number of objects; memory below."""

from __future__ import annotations

from s2spp.benchmark.result import Result
from s2spp.benchmark.svg import Panel, Series, picture
from s2spp.words import counted

# Colour, mark. The bare model is what the others are seen by: quiet, dashed, and without marks.
_LOOKS = {
    "raw": (0, "none"),
    "engine": (1, "circle"),
    "grpc": (2, "square"),
    "ws": (3, "diamond"),
    "rest": (4, "triangle"),
}
_NAMES = {"raw": "raw model", "engine": "engine, in process", "grpc": "gRPC", "ws": "WebSocket", "rest": "REST"}
_WIDTH = 300.0


def plot(result: Result) -> str:
    """An SVG document."""
    objects = sorted({run.objects for run in result.runs})
    sessions = sorted({run.sessions for run in result.runs})
    paths = [path for path in _LOOKS if any(run.path == path for run in result.runs)]
    panels = []
    for count in objects:
        lines = [
            _series(path, [(s, run.fps) for s in sessions if (run := result.run((path, s, count))) is not None])
            for path in paths
        ]
        ticks = [(float(s), str(s)) for s in sessions]
        title = f"{counted(count, 'object')} each"
        panels.append(Panel(title, "sessions", "frames / s, all sessions", lines, ticks, even=True, width=_WIDTH))
    rows = [panels]
    if memory := _memory(result, max(2, len(panels)) * _WIDTH):
        rows.append([memory])
    title = f"s2spp bench: {result.bundle}"
    said = "Frames a second of each way to the model against the number of sessions, a panel for each number of objects"
    return picture(title, said, rows, [_series(path, []) for path in paths])


def _series(path: str, points: list[tuple[float, float]]) -> Series:
    colour, mark = _LOOKS[path]
    return Series(_NAMES[path], points, colour, mark, dashed=path == "raw")


def _memory(result: Result, width: float) -> Panel | None:
    memory = result.memory
    if not memory.is_a_line:
        return None
    points = [(float(frame), rss) for frame, rss in zip(memory.frames, memory.rss_mb, strict=True)]
    line = Series("memory of the server", points, 1)
    last = memory.frames[-1]
    ticks = [(last * part / 5, f"{round(last * part / 5):,}") for part in range(6)]
    title = "memory of the server over one session, 1 object"
    return Panel(title, "frames", "resident MB", [line], ticks, width=width, height=220)
