"""`s2spp demo`"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Semaphore
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.progress import Progress

    from s2spp.embedded import EmbeddedServer

    Image = NDArray[np.uint8]


_STORY = 96
"""Frames in which the rendered clip tells its story; more play it slower."""


@dataclass
class Clip:
    """`truth` is None for a video of the user's; its first mask is then `first`."""

    frames: list[Image]
    jpegs: list[bytes]
    first: Image
    truth: list[Image] | None
    fps: float = 24.0


@dataclass
class Played:
    """One pass over the clip. `ms`: from sending a frame to having its mask, frame by frame."""

    path: str
    labels: list[Image]
    ms: list[float] = field(default_factory=list)

    @property
    def fps(self) -> float:
        return 1000 * len(self.ms) / sum(self.ms)


def demo(
    output: Annotated[Path, typer.Option("--out", "--output", "-o", help="Folder for masks and overlay.")] = Path(
        "demo-output"
    ),
    video: Annotated[str | None, typer.Option(help="Your own video or folder of images instead of the clip.")] = None,
    mask: Annotated[Path | None, typer.Option(help="First frame's mask of your video.")] = None,
    frames: Annotated[int, typer.Option(min=3, metavar="N", help="At most so many frames.")] = 96,
    bundle: Annotated[str | None, typer.Option(help="Bundle folder, the name of a shipped one, or auto.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table here too.")] = None,
) -> None:
    """Start a server, follow an object through a clip over gRPC and over REST, and show what came out.

    The clip is rendered here: two fish of one kind in a pond; one is followed while the camera moves, the other
    crosses its way, and lily pads hide it for a while. Since it is rendered, the true masks are known and J is real.

    Examples:

        s2spp demo

        s2spp demo --video my.mp4 --mask first.png
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from s2spp.embedded import EmbeddedServer
    from s2spp.json_file import write_json
    from service.client import Client

    if (video is None) != (mask is None):
        raise ValueError("--video and --mask go together: the mask says which object of the first frame to follow")
    console = Console()
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        clip = _own_clip(video, mask, frames) if video and mask else _rendered_clip(frames, progress)
        with EmbeddedServer(output / "server", bundle) as server:
            with Client(server.grpc) as client:
                model = client.model().name
            grpc = _over_grpc(server, clip, progress)
            rest, state_bytes = _over_rest(server, clip, progress)
        _write_pictures(output, clip, grpc, progress)
    rows = [_row(played, clip, state_bytes) for played in (grpc, rest)]
    same = all((a == b).all() for a, b in zip(grpc.labels, rest.labels, strict=True))
    _show(console, model, rows, same, output)
    if json_file is not None:
        write_json(json_file, {"runs": rows, "identical": same})
    if not same:
        raise ValueError("gRPC and REST gave different masks: this is a bug, please report it")


def _rendered_clip(frames: int, progress: Progress) -> Clip:
    from itertools import islice

    from s2spp.demo_clip import render_demo_clip

    task = progress.add_task("rendering the clip", total=frames)
    pictures, truth = [], []
    # Fewer frames are the story's beginning, at its own pace.
    for frame, labels in islice(render_demo_clip(max(frames, _STORY)), frames):
        pictures.append(frame)
        truth.append(labels)
        progress.advance(task)
    return Clip(pictures, [_jpeg(frame) for frame in pictures], truth[0], truth)


def _own_clip(video: str, mask: Path, frames: int) -> Clip:
    from itertools import islice

    from s2spp.video import open_frames
    from s2spp.words import counted
    from service.client.images import labels_of

    source = open_frames(video)
    pictures = [frame for _, frame in islice(source, frames)]
    if len(pictures) < 2:
        raise ValueError(f"{video} has {counted(len(pictures), 'frame')}; there is nothing to follow an object through")
    return Clip(pictures, [_jpeg(frame) for frame in pictures], labels_of(mask.read_bytes()), None, source.fps or 24.0)


def _jpeg(frame: Image) -> bytes:
    import cv2

    ok, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert ok
    return data.tobytes()


def _png(labels: Image) -> bytes:
    import cv2

    return cv2.imencode(".png", labels)[1].tobytes()


def _over_grpc(server: EmbeddedServer, clip: Clip, progress: Progress) -> Played:
    """Live: a frame is sent once the mask of the one before is there, as a camera's viewer would see it."""
    from service.client import Client

    task = progress.add_task("gRPC", total=len(clip.jpegs))
    turn, sent, played = Semaphore(1), [0.0], Played("gRPC", [])

    def live() -> Iterator[bytes]:
        for jpeg in clip.jpegs:
            turn.acquire()
            sent[0] = time.perf_counter()
            yield jpeg

    with Client(server.grpc) as client:
        for result in client.track(live(), clip.first):
            if result.frame_index > 0:
                played.ms.append(1e3 * (time.perf_counter() - sent[0]))
            played.labels.append(result.labels)
            progress.advance(task)
            turn.release()
    return played


def _over_rest(server: EmbeddedServer, clip: Clip, progress: Progress) -> tuple[Played, int]:
    from s2spp.rest_client import RestClient
    from service.client.images import labels_of

    task = progress.add_task("REST, every frame durable", total=len(clip.jpegs))
    played = Played("REST (strict)", [clip.first])
    with RestClient(server.http) as client:
        session = client.open(clip.jpegs[0], _png(clip.first))
        progress.advance(task)
        for index, jpeg in enumerate(clip.jpegs[1:], start=1):
            started = time.perf_counter()
            answer = client.segment(session["session"], index, jpeg)
            played.labels.append(labels_of(answer.mask))
            played.ms.append(1e3 * (time.perf_counter() - started))
            progress.advance(task)
        client.delete(session["session"])
    return played, session["state_bytes"]


def _write_pictures(output: Path, clip: Clip, played: Played, progress: Progress) -> None:
    """masks/NNNNN.png, overlay.mp4, and overview.jpg: eight frames at a glance; of the rendered clip also what went in,
    frames/NNNNN.jpg and first.png."""
    import cv2
    import numpy as np

    from s2spp.labels import save_labels
    from s2spp.overlay import overlay
    from s2spp.video import VideoWriter

    # Of an earlier, longer run: they would be taken for the rest of this one.
    for stale in (*output.glob("masks/[0-9]*.png"), *output.glob("frames/[0-9]*.jpg"), *output.glob("first.png")):
        stale.unlink()
    if clip.truth is not None:
        (output / "frames").mkdir(parents=True, exist_ok=True)
    task = progress.add_task("writing masks and video", total=len(clip.frames))
    height, width = clip.frames[0].shape[:2]
    small = (360, round(360 * height / width))
    glances: list[Image] = []
    chosen = set(np.linspace(0, len(clip.frames) - 1, 8).round().astype(int).tolist())
    with VideoWriter(output / "overlay.mp4", clip.fps, (height, width)) as writer:
        for index, (frame, labels) in enumerate(zip(clip.frames, played.labels, strict=True)):
            save_labels(output / "masks" / f"{index:05d}.png", labels)
            if clip.truth is not None:
                (output / "frames" / f"{index:05d}.jpg").write_bytes(clip.jpegs[index])
            drawn = overlay(frame, labels)
            writer.write(drawn)
            if index in chosen:
                glances.append(np.asarray(cv2.resize(drawn, small, interpolation=cv2.INTER_AREA), np.uint8))
            progress.advance(task)
    columns = min(4, len(glances))
    rows = [np.hstack(glances[at : at + columns]) for at in range(0, len(glances) // columns * columns, columns)]
    (output / "overview.jpg").write_bytes(_jpeg(np.vstack(rows)))
    if clip.truth is not None:
        save_labels(output / "first.png", clip.first)


def _row(played: Played, clip: Clip, state_bytes: int) -> dict[str, object]:
    import numpy as np

    row: dict[str, object] = {"path": played.path, "frames": len(played.labels)}
    if clip.truth is not None:
        pairs = list(zip(played.labels, clip.truth, strict=True))[1:]
        unions = [(((p > 0) | (t > 0)).sum(), ((p > 0) & (t > 0)).sum()) for p, t in pairs]
        row["J"] = float(np.mean([both / union if union else 1.0 for union, both in unions]))
    p50, p95 = np.percentile(played.ms, [50, 95])
    return row | {"fps": played.fps, "ms_p50": float(p50), "ms_p95": float(p95), "state_bytes": state_bytes}


def _show(console: object, model: str, rows: list[dict[str, object]], same: bool, output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)
    table = Table(title=f"{model}: one object, frame by frame, client and server on this machine")
    for column in ("path", "frames", "J", "frames/s", "ms p50", "ms p95", "state kept"):
        table.add_column(column, justify="left" if column == "path" else "right")
    for row in rows:
        table.add_row(
            str(row["path"]),
            str(row["frames"]),
            f"{row['J']:.3f}" if "J" in row else "-",
            f"{row['fps']:.1f}",
            f"{row['ms_p50']:.1f}",
            f"{row['ms_p95']:.1f}",
            f"{int(str(row['state_bytes'])) / 1e6:.2f} MB",
        )
    console.print(table)
    console.print(f"masks of both: {'identical' if same else 'DIFFERENT'}")
    console.print(f"look at [bold]{output / 'overlay.mp4'}[/] or [bold]{output / 'overview.jpg'}[/]")
    console.print(f"masks in {output / 'masks'}, the server's log in {output / 'server'}")
