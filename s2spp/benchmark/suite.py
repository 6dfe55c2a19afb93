"""The whole benchmark: material, a server, every lane, the memory of the server over a long session."""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import grpc
import httpx
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from s2spp.benchmark.lanes import EngineLane, GrpcLane, Lane, RestLane, WebSocketLane
from s2spp.benchmark.measure import Cell, Material, Run, measure, measure_raw
from s2spp.benchmark.precision import compare_precisions, int8_conv_gops
from s2spp.demo_clip import render_demo_clip
from s2spp.embedded import EmbeddedServer
from service.bootstrap import build_engine, load_runtime
from service.runtime import BundleError
from service.runtime.choose import FLOAT, INT8
from service.settings import Settings, variable

PATHS = ("raw", "engine", "grpc", "ws", "rest")
_SIZE = (480, 854)
# A POST waits for its answer, so a session over REST has one frame under way.
_WINDOW = {"raw": 1, "engine": 8, "grpc": 8, "ws": 8, "rest": 1}


@dataclass(frozen=True)
class Plan:
    bundle: str | None
    paths: list[str]
    sessions: list[int]
    objects: list[int]
    seconds: float
    memory_frames: int
    threads: int
    precisions: bool


def run_suite(plan: Plan, console: Console) -> dict[str, Any]:
    """Returns {"machine", "runs", "memory", "precisions"}, the `--json` form."""
    material = _material()
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        return asyncio.run(_run(plan, material, progress))


async def _run(plan: Plan, material: Material, progress: Progress) -> dict[str, Any]:
    limits = {"max_objects": max(plan.objects), "max_sessions": 64 + max(plan.sessions)}
    settings = Settings.load(bundle=plan.bundle, threads=plan.threads, **limits)
    runtime = load_runtime(settings)
    runs: list[Run] = []
    gops = await asyncio.to_thread(int8_conv_gops, plan.threads)
    precisions: dict[str, object] | None = None
    if plan.precisions:
        precisions = await asyncio.to_thread(_precisions, plan, material)
    memory: dict[str, list[float]] = {"frames": [], "rss_mb": []}
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(build_engine(settings, runtime=runtime))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="s2spp-bench-"))
        environment = {variable(name): str(limit) for name, limit in limits.items()}
        server = EmbeddedServer(Path(folder), plan.bundle, plan.threads, environment)
        if set(plan.paths) & {"grpc", "ws", "rest"} or plan.memory_frames:
            stack.enter_context(server)
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=server.http, timeout=120))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.grpc or "127.0.0.1:1"))
        lanes: dict[str, Callable[[], Lane]] = {
            "engine": lambda: EngineLane(engine),
            "grpc": lambda: GrpcLane(channel),
            "ws": lambda: WebSocketLane(server.http, client),
            "rest": lambda: RestLane(client),
        }
        cells = [(s, o, p) for o in plan.objects for s in plan.sessions for p in plan.paths]
        task = progress.add_task("", total=len(cells))
        for sessions, objects, path in cells:
            progress.update(task, description=f"{path}, {sessions} x {objects}")
            if path == "raw":
                runs.append(await asyncio.to_thread(measure_raw, runtime, sessions, objects, material, plan.seconds))
            else:
                cell = Cell(path, runtime.info.name, sessions, objects, _WINDOW[path], plan.seconds)
                runs.append(await measure(cell, lanes[path], material, _png(material.mask(objects))))
            progress.advance(task)
        if plan.memory_frames:
            memory = await _memory(GrpcLane(channel), server.pid, plan.memory_frames, material, progress)
    machine = _machine() | {"int8_conv_gops": gops}
    return {"machine": machine, "runs": [run.to_dict() for run in runs], "memory": memory, "precisions": precisions}


def _precisions(plan: Plan, material: Material) -> dict[str, object]:
    """Of the shipped bundles, or why not: int8 is not for every machine."""
    try:
        floats, int8 = (load_runtime(Settings.load(bundle=name, threads=plan.threads)) for name in (FLOAT, INT8))
    except BundleError as error:
        return {"unavailable": str(error)}
    return compare_precisions(floats, int8, material, plan.seconds).to_dict()


async def _memory(
    lane: GrpcLane, pid: int, frames: int, material: Material, progress: Progress
) -> dict[str, list[float]]:
    """Resident memory of the server process while one session goes on."""
    process = psutil.Process(pid)
    every = max(1, frames // 10)
    task = progress.add_task("memory, one session", total=frames)
    points: list[tuple[int, float]] = []
    await lane.open(material.jpegs[0], _png(material.mask(1)))
    for index in range(1, frames + 1):
        await lane.send(index, material.jpegs[material.turn(index)])
        progress.advance(task)
        if index % every == 0:
            points.append((index, process.memory_info().rss / 1e6))
    await lane.close()
    return {"frames": [float(frame) for frame, _ in points], "rss_mb": [rss for _, rss in points]}


def _material() -> Material:
    frames = [frame for frame, _ in render_demo_clip(48, _SIZE)]
    jpegs = [
        cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        for frame in frames
    ]
    return Material(frames, jpegs, _SIZE)


def _png(labels: Any) -> bytes:
    return cv2.imencode(".png", labels)[1].tobytes()


def _machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
