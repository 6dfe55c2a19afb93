"""The one training loop: stages of growing size and length, resumable at any step, on CPU or any number of GPUs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from model.network import S2Spp
from model.recipes import recipe
from model.training.batches import TensorBatch, batches
from model.training.checkpoint import Checkpoint
from model.training.config import Stage, TrainConfig
from model.training.log import TrainLog
from model.training.losses import ClipLoss


@dataclass(frozen=True)
class RunOptions:
    """Where and how long, as opposed to what is trained. `max_minutes`: stop (and save) then; the run resumes.
    `encoder_weights`: a safetensors file for both encoders (None: Xavier-like starts). `resume`: go on from
    `out`/checkpoint.pt. `init_from`: start from another run's weights."""

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
    """The rate at `step`: linear warm-up, then cosine to zero over the run, or the paper's slow decay."""
    warm = min(1.0, (step + 1) / train.warmup) if train.warmup else 1.0
    if train.schedule == "paper":
        return stage.lr * warm * 0.99 ** (step // train.decay_every)
    return stage.lr * warm * max(0.02, 0.5 * (1 + math.cos(math.pi * step / train.steps)))


def train(config: TrainConfig, options: RunOptions) -> TrainResult:
    """Train `config` on `options.data`. Raises DataError (naming the file), ValueError for settings that do not go
    together with the checkpoint found."""
    fabric = Fabric(accelerator="auto", devices=options.devices, precision=config.precision)  # type: ignore[arg-type]
    fabric.launch()
    torch.manual_seed(config.seed)
    network_config = recipe(config.network)
    network = S2Spp(network_config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = ClipLoss(config.loss, network_config.distance)
    path = options.out / "checkpoint.pt"
    saved = Checkpoint.load(path) if options.resume and path.exists() else None
    if saved is not None and saved.train != config:
        raise ValueError(
            f"{path} was made by other settings; use another --out, or --no-resume to start over"
        )
    messages = [] if saved else _start_weights(network, options)
    if saved is not None:
        network.load_state_dict(saved.weights)
        loss.load_state_dict(saved.loss_weights)
        messages.append(f"resumed at step {saved.step}")
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
    if averaged is not None and saved is not None and saved.averaged is not None:
        averaged.module.load_state_dict(saved.averaged)
        averaged.n_averaged.fill_(saved.step)
    optimizer = _optimizer(config, network, loss)
    if saved is not None:
        optimizer.load_state_dict(saved.optimizer)
    if averaged is not None:
        averaged.to(fabric.device)
    model, optimizer = fabric.setup(network, optimizer)
    loss.to(fabric.device)

    def save(step: int) -> None:
        if fabric.is_global_zero:
            Checkpoint(
                network_config,
                config,
                step,
                network.state_dict(),
                averaged.module.state_dict() if averaged else None,
                loss.state_dict(),
                optimizer.state_dict(),
            ).save(path)

    deadline = time.monotonic() + 60 * options.max_minutes if options.max_minutes else math.inf
    first = saved.step if saved else 0
    step, losses = first, []
    with TrainLog(options.out, config.steps, first, enabled=fabric.is_global_zero) as log:
        for message in messages:
            log.say(message)
        stream = batches(config, network_config, options.data, first, fabric.global_rank, options.workers)
        for step, stage, batch in stream:
            batch = _on_device(batch, fabric.device)
            rate = learning_rate(config, stage, step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            output = model(batch.frames.float(), batch.first_masks.float())
            total, terms = loss(output.logits, output.distance, batch.masks.float(), batch.distances)
            fabric.backward(total)
            fabric.clip_gradients(model, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
            optimizer.step()
            optimizer.zero_grad()
            if averaged is not None:
                averaged.update_parameters(network)
            losses.append(float(total.detach()))
            if not math.isfinite(losses[-1]):
                raise ValueError(
                    f"the loss became {losses[-1]} at step {step}; {path} holds the last good step"
                )
            log.step(step, losses[-1], {name: float(term) for name, term in terms.items()}, rate)
            if (step + 1) % options.picture_every == 0:
                log.picture(step, batch, output.logits)
            if (step + 1) % options.save_every == 0:
                save(step + 1)
            if time.monotonic() > deadline:
                break
    done = step + 1 if losses else first
    save(done)
    return TrainResult(path, done, done >= config.steps, losses)


def _start_weights(network: S2Spp, options: RunOptions) -> list[str]:
    if options.init_from is not None:
        start = Checkpoint.load(options.init_from)
        network.load_state_dict(start.averaged or start.weights)
        return [f"starting from the weights of {options.init_from}, step {start.step}"]
    if options.encoder_weights is None:
        return ["no encoder weights given: everything starts from random values"]
    said = network.encoder.load_pretrained(options.encoder_weights)
    if network.initializer.encoder is not None:
        network.initializer.encoder.load_pretrained(options.encoder_weights)
    return [said]


def _optimizer(config: TrainConfig, network: S2Spp, loss: nn.Module) -> torch.optim.Optimizer:
    encoders = [network.encoder, network.initializer.encoder]
    encoder = [p for module in encoders if module is not None for p in module.parameters()]
    known = {id(p) for p in encoder}
    rest = [p for p in network.parameters() if id(p) not in known] + list(loss.parameters())
    groups = [{"params": rest, "share": 1.0}, {"params": encoder, "share": config.encoder_lr}]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.stages[0].lr, weight_decay=config.weight_decay)


def _on_device(batch: TensorBatch, device: torch.device) -> TensorBatch:
    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    return TensorBatch(
        move(batch.frames),
        move(batch.first_masks),
        move(batch.masks),
        None if batch.distances is None else move(batch.distances),
    )
