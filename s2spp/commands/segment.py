"""`s2spp segment`"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from s2spp.left_session import LeftSession
    from service.client import Client, TrackedFrame


def segment(
    source: Annotated[str, typer.Argument(help="Video file, folder of images, or camera:0.", metavar="VIDEO")],
    mask: Annotated[
        Path, typer.Option("--mask", "-m", help="First frame's mask: indexed PNG (pixel = object id), or 0/255.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the masks: 00000.png, 00001.png, ...")],
    overlay: Annotated[Path | None, typer.Option(help="Write a video with the masks drawn on it: NAME.mp4.")] = None,
    server: Annotated[
        str | None,
        typer.Option(help="A server's gRPC: host:port, or host (port 50051). Default: run the model in this process."),
    ] = None,
    bundle: Annotated[str | None, typer.Option(help="Bundle folder, name or auto, if run in this process.")] = None,
    threads: Annotated[int, typer.Option(help="Cores for the model; 0: all that there are.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that was interrupted in OUT (with --server).")
    ] = False,
    frames: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after so many frames (a camera never ends).")
    ] = None,
) -> None:
    """Follow the objects of the first frame's mask through a video.

    Writes one indexed PNG per frame, the first included, at the video's own size. With --server, a run that was
    interrupted can be taken up again: the session waits at the server until it has been idle for too long.

    Examples:

        s2spp segment video.mp4 --mask first.png -o masks --overlay out.mp4

        s2spp segment frames/ --mask first.png -o masks --server localhost:50051

        s2spp segment frames/ --mask first.png -o masks --server localhost:50051 --resume

        s2spp segment camera:0 --mask first.png -o masks --frames 300
    """
    from itertools import islice

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from s2spp.labels import save_labels
    from s2spp.left_session import LeftSession, Note, outline
    from s2spp.overlay import overlay as draw
    from s2spp.video import VideoWriter, open_frames
    from s2spp.words import counted
    from service.client.images import labels_of
    from service.core.errors import (
        InvalidInput,
        ModelMismatch,
        SessionExpired,
        SessionRolledBack,
        SessionUnknown,
    )

    if resume and (server is None or overlay is not None):
        raise ValueError("--resume goes with --server, whose session it takes up, and without --overlay")
    if overlay is not None and overlay.suffix.lower() != ".mp4":
        raise ValueError(f"--overlay writes an mp4 video, NAME.mp4; got {overlay}")
    if overlay is not None and overlay.resolve() == Path(source).resolve():
        raise ValueError(f"{overlay} is the video that is read, and would be written over; choose another --overlay")
    if mask.resolve().parent == out.resolve():
        raise ValueError(
            f"{out} holds the mask that was given, and would be written over; choose another folder for -o"
        )
    if server is not None and (bundle is not None or threads):
        raise ValueError("--bundle and --threads are of a model in this process; with --server it is the server's")
    left = LeftSession(out)
    if not resume:
        left.refuse_if_used()
    first_mask = mask.read_bytes()
    labels = labels_of(first_mask)  # Says what is wrong with it before a model is loaded.
    if resume:
        left.refuse_other_mask(mask, labels)
    opened = open_frames(source)
    length = opened.length if frames is None else min(frames, opened.length or frames)
    if resume and not left.there and left.masks == length:
        Console().print(f"nothing is left to do: {counted(left.masks, 'mask')} in {out}")
        return
    begun = left.read() if resume else None
    if begun is not None and not opened.live:
        begun.refuse_other_video(source, next((frame for _, frame in opened), None))
    first_frame = begun.first_frame if begun is not None else None
    held: dict[int, NDArray[np.uint8]] = {}

    def read() -> Iterator[NDArray[np.uint8]]:
        nonlocal first_frame
        for index, (_, frame) in enumerate(islice(opened, frames)):
            if index == 0 and begun is None:
                first_frame = outline(frame)
            if overlay is not None:
                held[index] = frame
            yield frame

    done, started = 0, time.perf_counter()
    with ExitStack() as stack:
        results: Iterator[TrackedFrame]
        if server is None:
            from s2spp.inprocess import InProcess

            model = stack.enter_context(InProcess(bundle, threads))
            results = stack.enter_context(closing(model.track(read(), first_mask)))
        else:
            from service.client import Client

            client = stack.enter_context(Client(server))
            if begun is None:
                left.clear()
                results = client.track(read(), first_mask, keep_session=True)
            else:
                done = begun.through + 1
                results = client.resume(begun.session, read(), begun.through, keep_session=True)
        progress = stack.enter_context(
            Progress(
                TextColumn("segmenting"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[fps]:.1f} fps"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
        )
        task = progress.add_task("frames", total=length, completed=done, fps=0.0)
        video: VideoWriter | None = None
        here = 0
        try:
            for result in results:
                save_labels(out / f"{result.frame_index:05d}.png", result.labels)
                if result.session:
                    left.write(Note(result.session, result.frame_index, first_frame))
                if overlay is not None:
                    frame = held.pop(result.frame_index)
                    if video is None:
                        height, width = result.labels.shape
                        video = stack.enter_context(VideoWriter(overlay, opened.fps or 25.0, (height, width)))
                    video.write(draw(frame, result.labels))
                done, here = done + 1, here + 1
                progress.update(task, completed=done, fps=here / (time.perf_counter() - started))
        except InvalidInput as error:
            # The session has taken the index of what it refused: there is no going on.
            if server is not None:
                _forget(client, left)
            if "frame_index" not in error.metadata:
                raise
            raise ValueError(f"{opened.where(int(error.metadata['frame_index']))}, {error}") from error
        except BaseException as error:
            gone = SessionUnknown | SessionExpired | SessionRolledBack | ModelMismatch
            if (left.written or begun is not None) and not isinstance(error, gone):
                Console(stderr=True).print(
                    f"interrupted after {counted(done, 'mask')}; the same command with --resume goes on"
                )
            raise
        progress.update(task, total=done)
        if server is not None:
            _forget(client, left)
    Console().print(f"{counted(done, 'mask')} in {out}" + (f", overlay in {overlay}" if overlay else ""))


def _forget(client: Client, left: LeftSession) -> None:
    """The session, here and at the server."""
    from service.core.errors import S2sppError

    if left.there:
        with suppress(S2sppError):  # it expires by itself
            client.delete_session(left.read().session)
        left.clear()
