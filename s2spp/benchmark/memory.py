"""Whether a long session grows: the memory of a server that has this one session and nothing before it."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import psutil
from rich.progress import Progress

from s2spp.benchmark.lanes import GrpcLane
from s2spp.benchmark.material import Material
from s2spp.benchmark.result import SETTLED, Memory
from s2spp.embedded import EmbeddedServer


def points(frames: int) -> list[int]:
    """The frames after which memory is read: 500, and each tenth of all."""
    tenths = {frames * part // 10 for part in range(1, 11)} - {0}
    return sorted(tenths | ({SETTLED} if frames > SETTLED else set()))


async def measure_memory(
    bundle: str | None, threads: int, frames: int, material: Material, progress: Progress
) -> Memory:
    """A server of its own: what others left in its allocator would hide what this session takes."""
    task, rss_mb = progress.add_task("memory, one session", total=frames), []
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="s2spp-bench-"))
        server = stack.enter_context(EmbeddedServer(Path(folder), bundle, threads))
        process = psutil.Process(server.pid)
        lane = GrpcLane(await stack.enter_async_context(grpc.aio.insecure_channel(server.grpc)))
        await lane.open(material.jpegs[0], material.mask_png(1))
        due = points(frames)
        for index in range(1, frames + 1):
            await lane.send(index, material.jpeg(index))
            progress.advance(task)
            if index in due:
                rss_mb.append(process.memory_info().rss / 1e6)
        await lane.close()
    return Memory(due, rss_mb)
