"""`s2spp bench`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s2spp.benchmark.plan import PATHS, Plan


def bench(
    bundle: Annotated[
        str | None, typer.Option(help="Bundle folder, the name of a shipped one, or auto.")
    ] = Plan.bundle,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result here too.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="A result of before (--json): print both as shares of their bare models.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a Markdown page here (folders too), and its plot beside it as .svg.")
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option("--from", help="Measure nothing: show, compare or report this result (--json) of before."),
    ] = None,
    paths: Annotated[str, typer.Option(help="Which ways to the model, by comma.")] = ",".join(Plan.paths),
    sessions: Annotated[str, typer.Option(help="Numbers of sessions, by comma.")] = ",".join(map(str, Plan.sessions)),
    objects: Annotated[str, typer.Option(help="Numbers of objects per session, by comma.")] = ",".join(
        map(str, Plan.objects)
    ),
    seconds: Annotated[
        float, typer.Option(min=0.5, metavar="N", help="Time for each row of the table; slow ones take longer.")
    ] = Plan.seconds,
    memory_frames: Annotated[
        int, typer.Option(min=0, metavar="N", help="Frames in one session for the memory part; 0 leaves it out.")
    ] = Plan.memory_frames,
    threads: Annotated[int, typer.Option(help="Cores for the model; 0: all that there are.")] = Plan.threads,
    precisions: Annotated[
        bool, typer.Option(help="Measure the shipped float and int8 bundles in turns.")
    ] = Plan.precisions,
    store: Annotated[
        bool, typer.Option(help="Measure commits and resumes on an embedded Redis, for the first two --objects.")
    ] = Plan.store,
    start: Annotated[
        bool, typer.Option(help="Measure how long a server takes to start, and its imports.")
    ] = Plan.start,
    live: Annotated[
        bool, typer.Option(help="Measure more and more live sessions, until the machine is full.")
    ] = Plan.live,
) -> None:
    """Measure every way to the model beside the bare model, in one run: about a quarter of an hour.

    raw: the model alone, its frames decoded and resized beforehand. engine: in this process. grpc, ws,
    rest: a server on this machine, 854 x 480 JPEG in and indexed PNG out, client included. ms: one frame under way per
    session, from sending it to having its mask; overhead: that less the frame's time
    inside the model. frames/s: with several frames under way, so it can be more than 1000 / ms. of raw: that as a
    share of the bare model's, measured in turns with it.

    Times of different runs on a busy machine do not compare; ratios in one do. So --compare compares shares of raw.

    Live: sessions at a camera's pace. Where a frame's time goes: decoding, model, mask, the rest. The store: time
    and bytes of a commit (every few frames), of the one that opens a session, and of a resume. Starts: until a
    server answers. Memory: of a server over one long session; it should not grow.

    Examples:

        s2spp bench --json bench.json

        s2spp bench --json new.json --compare bench.json

        s2spp bench --report docs/BENCHMARKS.md

        s2spp bench --from bench.json --report docs/BENCHMARKS.md

        s2spp bench --paths raw,grpc --sessions 1 --objects 1 --seconds 5 --memory-frames 0
    """
    from rich.console import Console

    from s2spp.benchmark.compare import compare as compared
    from s2spp.benchmark.page import write_page
    from s2spp.benchmark.result import read_result
    from s2spp.benchmark.tables import print_comparison, print_result
    from s2spp.json_file import write_json

    # Whatever cannot be read or is meant otherwise is told before the minutes of measuring.
    old = None if compare is None else read_result(compare)
    if report is not None and report.suffix != ".md":
        raise ValueError(f"--report writes a Markdown page, NAME.md; got {report}")
    chosen = tuple(dict.fromkeys(path.strip() for path in paths.split(",")))
    if unknown := set(chosen) - set(PATHS):
        raise ValueError(f"no such path: {', '.join(sorted(unknown))}; there are {', '.join(PATHS)}")
    counts = _numbers(sessions), _numbers(objects, most=255)
    plan = Plan(bundle, chosen, *counts, seconds, memory_frames, threads, precisions, store, start, live)
    if measured is None:
        from s2spp.benchmark.suite import run_suite

        result = run_suite(plan, Console(stderr=True))
    elif plan != Plan():
        raise ValueError(f"--from measures nothing: leave out{plan.command().removeprefix('s2spp bench')}")
    else:
        result = read_result(measured)
    if json_file is not None:
        write_json(json_file, result.to_dict())
    console = Console()
    print_result(console, result)
    if compare is not None and old is not None:
        print_comparison(console, str(compare), compared(old, result))
    if report is not None:
        write_page(report, result)
        console.print(f"report: {report}, {report.with_suffix('.svg')}", soft_wrap=True)


def _numbers(text: str, most: int = 10_000) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ValueError(f"numbers by comma, such as 1,4,16; got {text!r}") from None
    if min(numbers) < 1 or max(numbers) > most:
        raise ValueError(f"each number is 1 to {most}; got {text!r}")
    return numbers
