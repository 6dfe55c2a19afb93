"""The one training loop: stages of growing size and length, resumable at any step, on CPU or GPUs."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.data.read import DataError
from model.network import S2Spp, with_gradient
from model.recipes import recipe
from model.training.batches import TensorBatch, batches
from model.training.checkpoint import Checkpoint
from model.training.config import Stage, TrainConfig
from model.training.interrupt import uninterrupted
from model.training.log import TrainLog
from model.training.losses import ClipLoss


@dataclass(frozen=True)
class RunOptions:
    """Where and how long, as opposed to what is trained. `max_minutes`: stop (and save) then; the run
    resumes. `encoder_weights`: a safetensors file for both encoders (None: random starts). `resume`: go on
    from `out`/checkpoint.pt. `init_from`: start from the weights of another run's checkpoint, or of a bundle,
    instead. `devices`: GPUs, or processes on a CPU; `workers`: loader processes of each."""

    data: Path
    out: Path
    encoder_weights: Path | None = None
    init_from: Path | None = None
    max_minutes: float | None = None
    devices: int = 1
    workers: int = 1
    save_every: int = 200
    picture_every: int = 500
    resume: bool = True


@dataclass(frozen=True)
class TrainResult:
    """`steps` done in all, whether the run is `finished`, the `losses` of the steps of this call."""

    checkpoint: Path
    steps: int
    finished: bool
    losses: list[float]


def learning_rate(train: TrainConfig, stage: Stage, step: int) -> float:
    """The rate at `step`: linear warm-up, then a cosine down to 2 % over the run, or the paper's slow
    decay."""
    warm = min(1.0, (step + 1) / train.warmup) if train.warmup else 1.0
    if train.schedule == "paper":
        return stage.lr * warm * 0.99 ** (step // train.decay_every)
    return stage.lr * warm * max(0.02, 0.5 * (1 + math.cos(math.pi * step / train.steps)))


def train(config: TrainConfig, options: RunOptions) -> TrainResult:
    """Train `config` on `options.data`. Raises DataError (naming the file); ValueError for settings that
    cannot be trained or do not go together with the checkpoint found, and for a loss that is no number any
    more. Interrupted (KeyboardInterrupt, SystemExit) or stopped by a bad file, it saves the last whole step."""
    config.check(recipe(config.network).multiple)
    if not options.data.is_dir():
        raise DataError(f"{options.data}: no such folder; --data names the one that holds the data sets")
    fabric = Fabric(accelerator="auto", devices=options.devices, precision=config.precision)
    fabric.launch()
    deadline = time.monotonic() + 60 * options.max_minutes if options.max_minutes is not None else None
    run = _Run(config, options, fabric)
    first = run.done
    try:
        losses = _steps(run, config, options, deadline)
    except (KeyboardInterrupt, SystemExit, DataError):
        if run.done > first:
            run.save()
            fabric.print(f"stopped; step {run.done} is saved, and the same command goes on", file=sys.stderr)
        raise
    # A finished run's checkpoint is left as it is.
    if run.done > first:
        run.save()
    return TrainResult(run.path, run.done, run.done >= config.steps, losses)


def _steps(run: _Run, config: TrainConfig, options: RunOptions, deadline: float | None) -> list[float]:
    """From where the run is to its end, or to the `deadline` (time.monotonic): the losses."""
    fabric = run.fabric
    losses: list[float] = []
    with TrainLog(options.out, config.steps, run.done, enabled=fabric.is_global_zero) as log:
        for message in run.messages:
            log.say(message)
        stream = batches(config, run.network.config, options.data, run.done, fabric.global_rank, options.workers)
        for step, stage, batch in stream:
            batch = batch.to(fabric.device)
            rate = learning_rate(config, stage, step)
            with uninterrupted():
                loss, terms, logits = run.update(batch, rate, stage.gap)
                losses.append(loss)
                log.step(step, loss, terms, rate)
            if run.done % options.picture_every == 0 or run.done == config.steps:
                log.picture(step, batch, logits, stage.gap)
            # Rank 0's clock counts: were each to ask its own, one could go on and wait for the others for
            # ever.
            if deadline is not None and fabric.broadcast(time.monotonic() >= deadline):
                break
            if run.done % options.save_every == 0:
                run.save()
    return losses


class _Objective(nn.Module):
    """Network and loss as one module, so that learned loss weights too are kept equal across GPUs."""

    def __init__(self, network: S2Spp, loss: ClipLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(
        self, frames: Tensor, first_masks: Tensor, masks: Tensor, distances: Tensor | None, gap: int
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The tensors of a TensorBatch -> (total, its terms, logits of the frames that `with_gradient` lists)."""
        output = self.network(frames.float(), first_masks.float(), gap)
        # masks and distances begin with frame 1
        trained = [t - 1 for t in with_gradient(frames.shape[1], gap)]
        distances = None if distances is None else distances[:, trained]
        total, terms = self.loss(output.logits, output.distance, masks[:, trained].float(), distances)
        return total, terms, output.logits


class _Run:
    """All that changes while training, set up anew or from a checkpoint: `done` steps of it are done."""

    def __init__(self, config: TrainConfig, options: RunOptions, fabric: Fabric) -> None:
        self.config, self.fabric = config, fabric
        self.path = options.out / "checkpoint.pt"
        network_config = recipe(config.network)
        saved = _saved(self.path, config) if options.resume else None
        if saved is not None and saved.network != network_config:
            raise ValueError(f"{self.path}: recipe {config.network} was another network then; use another --out")
        torch.manual_seed(config.seed)
        self.network = S2Spp(network_config)
        self.loss = ClipLoss(config.loss, network_config.distance)
        if saved is None:
            self.done, self.messages = 0, [_start_weights(self.network, options)]
        else:
            self.done, self.messages = saved.step, [f"resumed at step {saved.step}"]
            self.network.load_state_dict(saved.weights)
            self.loss.load_state_dict(saved.loss_weights)
        if config.frozen:
            _freeze(self.network, config.frozen, options, resumed=saved is not None)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = _averaged(self.network, config.ema, saved)
        if self.averaged is not None:
            self.averaged.to(fabric.device)
        objective = _Objective(self.network, self.loss)
        self.model, self.optimizer = fabric.setup(objective, _optimizer(config, self.network, self.loss))
        if saved is not None:
            _resume_optimizer(self.optimizer, saved, self.path)

    def update(self, batch: TensorBatch, rate: float, gap: int) -> tuple[float, dict[str, Tensor], Tensor]:
        """One step: (loss, its terms, logits); the loss is the mean over the ranks. ValueError where it is no
        finite number, with nothing changed."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        total, terms, logits = self.model(batch.frames, batch.first_masks, batch.masks, batch.distances, gap)
        self.fabric.backward(total)
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.config.clip_norm, error_if_nonfinite=False
        )
        mean = self.fabric.all_reduce(total.detach(), reduce_op="mean")
        assert isinstance(mean, Tensor) and norm is not None
        loss = float(mean)
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            raise ValueError(
                f"step {self.done} has loss {loss} and a gradient of norm {float(norm)}: lower the learning "
                f"rate. {self.path} is left as it was"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        self.done += 1
        return loss, terms, logits

    def save(self) -> None:
        if self.fabric.is_global_zero:
            Checkpoint(
                self.network.config,
                self.config,
                self.done,
                self.network.state_dict(),
                self.averaged.module.state_dict() if self.averaged is not None else None,
                self.loss.state_dict(),
                self.optimizer.state_dict(),
            ).save(self.path)


def _saved(path: Path, config: TrainConfig) -> Checkpoint | None:
    if not path.exists():
        return None
    saved = Checkpoint.load(path)
    if saved.train != config:
        raise ValueError(f"{path} was made by other settings; use another --out, or --no-resume to start over")
    return saved


def _start_weights(network: S2Spp, options: RunOptions) -> str:
    """Load what the run starts from and say what that was."""
    if options.init_from is not None:
        return _start_from(network, options.init_from)
    if options.encoder_weights is None:
        return "no encoder weights given: everything starts from random values"
    said = network.encoder.load_pretrained(options.encoder_weights)
    if network.initializer.encoder is not None:
        network.initializer.encoder.load_pretrained(options.encoder_weights)
    return said


def _freeze(network: S2Spp, stride: int, options: RunOptions, *, resumed: bool) -> None:
    """The encoder's layers up to `stride` keep the weights that they have, which must be somebody's."""
    if not resumed and options.init_from is None and options.encoder_weights is None:
        raise ValueError(
            f"this recipe keeps the encoder's first weights up to stride {stride}, and none were given: they would "
            "stay random. Name a file with --encoder-weights, or a run or bundle with --init-from"
        )
    for module in network.encoder.up_to(stride):
        module.requires_grad_(False)


def _start_from(network: S2Spp, path: Path) -> str:
    """Take every weight that fits from a checkpoint or a bundle; `network` may be another one than was trained."""
    if path.is_dir():
        # Here, since it brings onnx, which no other run needs.
        from model.export.weights import bundle_weights

        weights = bundle_weights(path)
    else:
        start = Checkpoint.load(path)
        weights = start.averaged or start.weights
    ours = network.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in ours and ours[name].shape == tensor.shape}
    if not fitting:
        raise ValueError(f"{path}: none of its weights fits this network")
    network.load_state_dict(fitting, strict=False)
    missing = {name for name in ours.keys() - fitting.keys() if name.startswith("encoder.")}
    if missing:
        raise ValueError(f"{path}: its encoder is another one than this network's")
    anew = sorted({name.split(".")[0] for name in ours.keys() - fitting.keys()})
    rest = f"; something in {', '.join(anew)} does not fit and starts anew" if anew else ""
    return f"starting from {len(fitting)} of {len(ours)} weights of {path}{rest}"


def _averaged(network: S2Spp, decay: float, saved: Checkpoint | None) -> AveragedModel | None:
    """The moving average of the weights, going on from `saved`."""
    if not decay:
        return None
    average: Callable[..., None] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, multi_avg_fn=average)
    if saved is not None and saved.averaged is not None:
        averaged.module.load_state_dict(saved.averaged)
        # Zero would make the next update start the average anew.
        averaged.n_averaged.fill_(saved.step)
    return averaged


def _optimizer(config: TrainConfig, network: S2Spp, loss: nn.Module) -> torch.optim.Optimizer:
    """Encoders and the rest in groups of their own for the learning rate, each with and without weight
    decay."""
    encoders = [network.encoder, network.initializer.encoder]
    encoder = [p for module in encoders if module is not None for p in module.parameters() if p.requires_grad]
    known = {id(p) for p in encoder}
    rest = [p for p in network.parameters() if id(p) not in known and p.requires_grad] + list(loss.parameters())
    groups = [
        {
            "params": [p for p in part if (p.ndim > 1) == decayed and p.requires_grad],
            "share": share,
            "weight_decay": decay,
        }
        for part, share in ((rest, 1.0), (encoder, config.encoder_lr))
        for decayed, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.stages[0].lr)


def _resume_optimizer(optimizer: torch.optim.Optimizer, saved: Checkpoint, path: Path) -> None:
    # After fabric.setup, so that the moments go where it moved the weights.
    try:
        optimizer.load_state_dict(saved.optimizer)
    except ValueError as error:
        raise ValueError(
            f"{path}: an earlier version grouped the weights otherwise ({error}); start from its weights "
            "with --init-from and another --out"
        ) from error
