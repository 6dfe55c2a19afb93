"""`s2spp bench`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    bundle: Annotated[str | None, typer.Option(help="Bundle folder, the name of a shipped one, or auto.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table here too.")] = None,
    paths: Annotated[str, typer.Option(help="Which ways to the model, by comma.")] = "raw,engine,grpc,ws,rest",
    sessions: Annotated[str, typer.Option(help="Numbers of sessions, by comma.")] = "1,4,16",
    objects: Annotated[str, typer.Option(help="Numbers of objects per session, by comma.")] = "1,3,10",
    seconds: Annotated[float, typer.Option(min=0.5, help="Time for each row of the table.")] = 12.0,
    memory_frames: Annotated[
        int, typer.Option(min=0, help="Frames in one session for the memory table; 0 leaves it out.")
    ] = 5000,
    threads: Annotated[int, typer.Option(help="Threads of the model; 0: one per core.")] = 0,
    precisions: Annotated[bool, typer.Option(help="Measure the shipped float and int8 bundles in turns.")] = True,
) -> None:
    """Measure every way to the model beside the bare model, in one run.

    raw: the model alone. engine: in this process. grpc, ws, rest: a server on this machine, 854 x 480 JPEG in and
    indexed PNG out, client included. ms: one frame under way per session, from sending it to having its mask;
    overhead: that less the frame's time inside the model. frames/s: with several frames under way, so it can be more
    than 1000 / ms. Times of different runs on a busy machine do not compare; ratios in one do.

    Examples:

        s2spp bench --json bench.json

        s2spp bench --paths raw,grpc --sessions 1 --objects 1 --seconds 5 --memory-frames 0
    """
    from rich.console import Console
    from rich.table import Table

    from s2spp.benchmark.suite import PATHS, Plan, run_suite
    from s2spp.json_file import write_json

    chosen = [path.strip() for path in paths.split(",")]
    if unknown := set(chosen) - set(PATHS):
        raise ValueError(f"no such path: {', '.join(sorted(unknown))}; there are {', '.join(PATHS)}")
    plan = Plan(
        bundle, chosen, _numbers(sessions), _numbers(objects, most=255), seconds, memory_frames, threads, precisions
    )
    console = Console()
    result = run_suite(plan, Console(stderr=True))
    table = Table(
        title=f"{result['runs'][0]['bundle']} on {result['machine']['cpu']}, {result['machine']['cores']} cores"
    )
    for column in ("path", "sessions", "objects", "frames/s", "ms p50", "ms p95", "overhead ms p50"):
        table.add_column(column, justify="left" if column == "path" else "right")
    for run in result["runs"]:
        overhead = "" if run["path"] == "raw" else f"{run['overhead_ms_p50']:.2f}"
        table.add_row(
            run["path"],
            str(run["sessions"]),
            str(run["objects"]),
            f"{run['fps']:.1f}",
            f"{run['ms_p50']:.1f}",
            f"{run['ms_p95']:.1f}",
            overhead,
        )
    console.print(table)
    console.print(f"this machine: {result['machine']['int8_conv_gops']:,.0f} GOP/s at an 8-bit 3x3 convolution")
    pair = result["precisions"]
    if pair and "unavailable" in pair:
        console.print(f"float and int8 in turns: not measured: {pair['unavailable']}", markup=False, soft_wrap=True)
    elif pair:
        console.print(
            f"in turns, the bare model: {pair['float_bundle']} {pair['float_ms']:.1f} ms, {pair['int8_bundle']} "
            f"{pair['int8_ms']:.1f} ms ({1e3 / pair['int8_ms']:.0f} frames/s), ratio {pair['ratio']:.2f}"
        )
    memory = result["memory"]
    for frames, rss in zip(memory["frames"], memory["rss_mb"], strict=True):
        console.print(f"memory after frame {frames}: {rss:.1f} MB")
    if json_file is not None:
        write_json(json_file, result)


def _numbers(text: str, most: int = 10_000) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"numbers by comma, such as 1,4,16; got {text!r}") from None
    if min(numbers) < 1 or max(numbers) > most:
        raise ValueError(f"each number is 1 to {most}; got {text!r}")
    return numbers
