"""The whole benchmark: material, a server, every path in turns, the store, starts, the memory of a long session."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import grpc
import httpx
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from s2spp.benchmark.lanes import EngineLane, GrpcLane, Lane, RawLane, RestLane, WebSocketLane
from s2spp.benchmark.live import measure_live
from s2spp.benchmark.machine import Others, describe_machine
from s2spp.benchmark.material import Material
from s2spp.benchmark.measure import Slice, measure_lanes
from s2spp.benchmark.memory import measure_memory
from s2spp.benchmark.parts import StageSums, measure_parts, stage_sums
from s2spp.benchmark.plan import Plan
from s2spp.benchmark.precision import compare_precisions, int8_conv_gops
from s2spp.benchmark.result import LiveRow, Memory, PartsRow, Precisions, Result, Run
from s2spp.benchmark.startup import measure_startup
from s2spp.benchmark.store import measure_store
from s2spp.benchmark.turns import in_turns
from s2spp.embedded import EmbeddedServer
from service.batching import BatchingQueue
from service.bootstrap import FRAMES_IN_A_RUN, build_engine, load_runtime
from service.core.ports import Runtime
from service.runtime import BundleError
from service.runtime.choose import FLOAT, INT8
from service.settings import Settings, variable

# A POST waits for its answer, so a session over REST has one frame under way.
_WINDOW = {"raw": 8, "engine": 8, "grpc": 8, "ws": 8, "rest": 1}


def run_suite(plan: Plan, console: Console) -> Result:
    """Takes minutes; `console` shows how far it is."""
    material = Material.rendered()
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        return asyncio.run(_run(plan, material, progress))


async def _run(plan: Plan, material: Material, progress: Progress) -> Result:
    others = Others()
    limits = {"max_objects": max(plan.objects), "max_sessions": 64 + max(plan.sessions)}
    settings = Settings.load(bundle=plan.bundle, threads=plan.threads, **limits)
    runtime = load_runtime(settings)
    gops = await asyncio.to_thread(int8_conv_gops, plan.threads)
    precisions = await asyncio.to_thread(_precisions, plan, material) if plan.precisions else None
    environment = {variable(name): str(limit) for name, limit in limits.items()}
    runs, parts, live = await _paths(plan, settings, environment, runtime, material, progress)
    store = None
    if plan.store:
        few = plan.objects[:2]  # which tell what one more adds
        store = await measure_store(settings, runtime, few, material, plan.seconds, progress)
    start = await asyncio.to_thread(measure_startup, plan.bundle, plan.threads, progress) if plan.start else []
    memory = Memory()
    if plan.memory_frames:
        memory = await measure_memory(plan.bundle, plan.threads, plan.memory_frames, material, progress)
    machine = describe_machine() | {"int8_conv_gops": gops, "others_cpu": others.share()}
    return Result(machine, runs, memory, precisions, store, runtime.info.digest, plan.command(), start, parts, live)


async def _paths(
    plan: Plan,
    settings: Settings,
    environment: dict[str, str],
    runtime: Runtime,
    material: Material,
    progress: Progress,
) -> tuple[list[Run], list[PartsRow], list[LiveRow]]:
    async with AsyncExitStack() as stack:
        watched = StageSums()
        engine = await stack.enter_async_context(build_engine(settings, runtime=runtime, observer=watched))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="s2spp-bench-"))
        server = EmbeddedServer(Path(folder), plan.bundle, plan.threads, environment)
        if plan.live or set(plan.paths) & {"grpc", "ws", "rest"}:
            stack.enter_context(server)
        # Lanes wait for their turns: after 5 s of silence the server closes a connection, and at that very moment a
        # request on it would be lost.
        kept = httpx.Limits(keepalive_expiry=2.0)
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=server.http, timeout=120, limits=kept))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.grpc or "127.0.0.1:1"))
        queue = BatchingQueue(runtime, settings.max_batch, FRAMES_IN_A_RUN[settings.provider])
        stack.push_async_callback(queue.close)
        prepared = material.for_model(runtime.info)

        def lane(path: str, objects: int) -> Lane:
            """Of a new session."""
            if path == "raw":
                return RawLane(queue, prepared, objects)
            if path == "engine":
                return EngineLane(engine)
            if path == "grpc":
                return GrpcLane(channel)
            return WebSocketLane(server.http, client) if path == "ws" else RestLane(client)

        async def one_slice(path: str, sessions: int, objects: int, seconds: float) -> Slice:
            return await measure_lanes(
                partial(lane, path, objects), sessions, objects, _WINDOW[path], material, seconds
            )

        cells = [(sessions, objects) for objects in plan.objects for sessions in plan.sessions]
        task = progress.add_task("", total=len(cells) * len(plan.paths))
        advance = partial(progress.advance, task)
        runs: list[Run] = []
        for sessions, objects in cells:
            progress.update(task, description=f"sessions: {sessions}, objects: {objects}")
            contenders = {path: partial(one_slice, path, sessions, objects) for path in plan.paths}
            seen = await in_turns(contenders, plan.seconds, advance)
            runs += [_run_of(path, runtime.info.name, sessions, objects, slices) for path, slices in seen.items()]
        sums = {"engine": watched.read} | dict.fromkeys(("grpc", "ws"), partial(stage_sums, client))
        parts = [
            await measure_parts(path, lane(path, 1), sums[path], material, plan.seconds / 3)
            for path in plan.paths
            if path in sums
        ]
        live: list[LiveRow] = []
        if plan.live:
            live = await measure_live(partial(lane, "grpc", 1), material, plan.seconds)
        return runs, parts, live


def _run_of(path: str, bundle: str, sessions: int, objects: int, slices: Sequence[Slice]) -> Run:
    total, inside = (np.concatenate(parts) for parts in zip(*((s.total_ms, s.compute_ms) for s in slices), strict=True))
    p50, p95 = np.percentile(total, [50, 95])
    return Run(
        path,
        bundle,
        sessions,
        objects,
        _WINDOW[path],
        fps=sum(each.frames for each in slices) / sum(each.seconds for each in slices),
        ms_p50=float(p50),
        ms_p95=float(p95),
        overhead_ms_p50=float(np.median(total - inside)),
        fps_slices=[each.frames / each.seconds for each in slices],
        ms_slices=[float(np.median(each.total_ms)) for each in slices],
        count=len(total),
    )


def _precisions(plan: Plan, material: Material) -> Precisions | str:
    """Of the shipped bundles, or why not: int8 is not for every machine."""
    try:
        floats, int8 = (load_runtime(Settings.load(bundle=name, threads=plan.threads)) for name in (FLOAT, INT8))
    except BundleError as error:
        return str(error)
    return compare_precisions(floats, int8, material, plan.seconds)
