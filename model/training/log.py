"""What a person sees of a run: progress bar, TensorBoard curves and mask pictures, and a JSON-lines log."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from model.training.batches import TensorBatch

# A curve point averages this many steps: single steps of different clips jump too much to be read.
_WINDOW = 20


class TrainLog:
    """Context manager around the loop. `enabled` False (all ranks but one): everything is a no-op."""

    def __init__(self, out: Path, steps: int, first: int, *, enabled: bool) -> None:
        self.enabled = enabled
        self._window: list[tuple[float, dict[str, float]]] = []
        if not enabled:
            return
        out.mkdir(parents=True, exist_ok=True)
        self._console = Console(stderr=True)
        self._writer = SummaryWriter(out / "tensorboard", purge_step=first)  # type: ignore[no-untyped-call]
        self._file = (out / "log.jsonl").open("a")
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task("train", total=steps, completed=first, loss=float("nan"))

    def __enter__(self) -> TrainLog:
        if self.enabled:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.enabled:
            self._progress.stop()
            self._writer.close()  # type: ignore[no-untyped-call]
            self._file.close()

    def say(self, message: str) -> None:
        if self.enabled:
            self._progress.console.print(message)

    def step(self, step: int, loss: float, terms: dict[str, float], rate: float) -> None:
        if not self.enabled:
            return
        self._window.append((loss, terms))
        if len(self._window) < _WINDOW:
            self._progress.update(self._task, completed=step + 1)
            return
        mean = sum(value for value, _ in self._window) / _WINDOW
        means = {name: sum(t[name] for _, t in self._window) / _WINDOW for name in terms}
        self._window.clear()
        self._progress.update(self._task, completed=step + 1, loss=mean)
        self._writer.add_scalar("loss/total", mean, step)  # type: ignore[no-untyped-call]
        for name, value in means.items():
            self._writer.add_scalar(f"loss/{name}", value, step)  # type: ignore[no-untyped-call]
        self._writer.add_scalar("learning_rate", rate, step)  # type: ignore[no-untyped-call]
        self._file.write(json.dumps({"step": step, "loss": mean, **means, "lr": rate}) + "\n")
        self._file.flush()

    def picture(self, step: int, batch: TensorBatch, logits: Tensor) -> None:
        """The first clip of the batch: frames with the predicted mask in red above the same with the truth in green."""
        if not self.enabled:
            return
        frames = batch.frames[0, 1:].float().cpu() / 255
        truth = batch.masks[0].float().cpu()
        size = frames.shape[-2:]
        predicted = F.interpolate(
            torch.sigmoid(logits[0].detach().float().cpu()), size=size, mode="bilinear"
        )[:, 0]
        rows = []
        for channel, mask in ((0, (predicted > 0.5).float()), (1, truth)):
            tint = torch.zeros(3, 1, 1)
            tint[channel] = 1.0
            rows.append(
                torch.cat(list(frames * (1 - 0.5 * mask[:, None]) + 0.5 * mask[:, None] * tint), dim=2)
            )
        self._writer.add_image("clip", torch.cat(rows, dim=1), step)  # type: ignore[no-untyped-call]
