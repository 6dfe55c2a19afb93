"""The `s2spp` program: one command per module of s2spp.commands."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import version
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from s2spp.commands.ablate import ablate
from s2spp.commands.bench import bench
from s2spp.commands.demo import demo
from s2spp.commands.evaluate import evaluate
from s2spp.commands.export import export
from s2spp.commands.halve import halve
from s2spp.commands.quantise import quantise
from s2spp.commands.segment import segment
from s2spp.commands.serve import gateway, serve, worker
from s2spp.commands.train import train

_TRAINING = {"torch", "onnx", "onnxscript", "lightning_fabric", "tensorboard"}

app = typer.Typer(
    name="s2spp",
    help="Video object segmentation: mark an object in the first frame, get its mask in every later one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"s2spp {version('s2spp')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


for command in (serve, worker, gateway, segment, demo, evaluate, bench, train, export, quantise, halve, ablate):
    app.command()(command)


def main() -> None:
    """Exit status 0: done; 1: it could not be done, and one line says why; 2: unusable arguments."""
    # Told to end, or the terminal was closed: a command ends its server and completes its files on the way out.
    for each in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # Windows has no SIGHUP
        if signal.getsignal(each) is signal.SIG_DFL:  # nohup ignores SIGHUP, and that stays
            signal.signal(each, _leave)
    try:
        app()
    except ModuleNotFoundError as error:
        extra = _extra(error.name or "")
        torch = "torch==2.13.0 " if extra == "train" else ""
        _fail(f"{error}: this command needs more: pip install {torch}-e '.[{extra}]' in the checkout of s2spp")
    except OSError as error:
        # Python's own ones carry a bare file name and a reason; ours carry a sentence.
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ValueError as error:
        _fail(str(error))
    except Exception as error:
        # Our own errors are written for people; anything else is a bug and keeps its traceback.
        if type(error).__module__.split(".")[0] not in {"service", "model", "s2spp"}:
            raise
        _fail(str(error))


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _extra(module: str) -> str:
    if module.split(".")[0] in _TRAINING:
        return "train"
    return "gateway" if sys.argv[1:2] == ["gateway"] else "cpu"


def _fail(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print("[bold red]error:[/]", Text(message))
    sys.exit(1)


if __name__ == "__main__":
    main()
