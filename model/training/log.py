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

from model.network import with_gradient
from model.training.batches import TensorBatch

# A curve point averages this many steps: single steps of different clips jump too much to be read.
_WINDOW = 20


class TrainLog:
    """Context manager around the loop, for the steps from `first` on: what a former run logged of these steps
    is dropped. `enabled` False (all ranks but one): everything is a no-op."""

    def __init__(self, out: Path, steps: int, first: int, *, enabled: bool) -> None:
        self.enabled = enabled
        self._window: list[dict[str, float]] = []
        self._last = (0, 0.0)
        if not enabled:
            return
        out.mkdir(parents=True, exist_ok=True)
        self._writer = SummaryWriter(out / "tensorboard", purge_step=first)
        path = out / "log.jsonl"
        _drop_from(path, first)
        self._file = path.open("a")
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("train", total=steps, completed=first, loss="")

    def __enter__(self) -> TrainLog:
        if self.enabled:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.enabled:
            if self._window:
                self._point()
            self._progress.stop()
            self._writer.close()
            self._file.close()

    def say(self, message: str) -> None:
        if self.enabled:
            self._progress.console.print(message)

    def step(self, step: int, loss: float, terms: dict[str, Tensor], rate: float) -> None:
        if not self.enabled:
            return
        self._window.append({"total": loss} | {name: float(term) for name, term in terms.items()})
        self._last = (step, rate)
        self._progress.update(self._task, completed=step + 1)
        if len(self._window) == _WINDOW:
            self._point()

    def picture(self, step: int, batch: TensorBatch, logits: Tensor, gap: int) -> None:
        """The first clip of the batch: its frames with the predicted mask in red, above the same with the
        truth in green."""
        if not self.enabled:
            return
        shown = with_gradient(batch.frames.shape[1], gap)
        frames = batch.frames[0, shown].float().cpu() / 255
        truth = batch.masks[0, [t - 1 for t in shown]].float().cpu()
        probability = torch.sigmoid(logits[0].detach().float().cpu())
        predicted = F.interpolate(probability, size=frames.shape[-2:], mode="bilinear")[:, 0]
        rows = []
        for channel, mask in ((0, (predicted > 0.5).float()), (1, truth)):
            tint = torch.zeros(3, 1, 1)
            tint[channel] = 1.0
            tinted = frames * (1 - 0.5 * mask[:, None]) + 0.5 * mask[:, None] * tint
            rows.append(torch.cat(list(tinted), dim=2))
        self._writer.add_image("clip", torch.cat(rows, dim=1), step)

    def _point(self) -> None:
        """One point of every curve: the mean of the window."""
        step, rate = self._last
        means = {name: sum(t[name] for t in self._window) / len(self._window) for name in self._window[0]}
        self._window.clear()
        self._progress.update(self._task, loss=f"loss {means['total']:.4f}")
        for name, value in means.items():
            self._writer.add_scalar(f"loss/{name}", value, step)
        self._writer.add_scalar("learning_rate", rate, step)
        loss = means.pop("total")
        self._file.write(json.dumps({"step": step, "loss": loss, **means, "lr": rate}) + "\n")
        self._file.flush()


def _drop_from(path: Path, first: int) -> None:
    """A run that was cut off logged steps past its last checkpoint, which are about to be taken again; its last line
    may be half a line."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if (step := _step_of(line)) is not None and step < first]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in kept))
    partial.replace(path)


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except json.JSONDecodeError:
        return None
