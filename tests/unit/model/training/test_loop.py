"""The trainer: what a person who stops, kills and resumes runs relies on."""

import json
import math
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_training import TINY_VGG, options, tiny_network, tiny_train
from torch import Tensor, nn

from model import recipes
from model.config import MemoryConfig
from model.data.read import DataError
from model.network import S2Spp, encoders
from model.training import loop
from model.training.checkpoint import Checkpoint
from model.training.config import TRAIN_RECIPES, SourceConfig, TrainConfig
from model.training.log import TrainLog
from model.training.loop import RunOptions, TrainResult, _optimizer, learning_rate, train
from model.training.losses import ClipLoss


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the trainer handles it."""


def train_until_killed(config: TrainConfig, run: RunOptions, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and be killed while the batch of step `at` is drawn."""
    whole = loop.batches

    def cut(*args: Any) -> Iterator[Any]:
        for step, stage, batch in whole(*args):
            if step == at:
                raise Killed
            yield step, stage, batch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "batches", cut)
        with pytest.raises(Killed):
            train(config, run)


def assert_same(one: Any, other: Any) -> None:
    """Equal to the last bit, through nested dictionaries and lists."""
    if isinstance(one, Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def assert_same_checkpoint(one: Path, other: Path) -> None:
    a, b = Checkpoint.load(one), Checkpoint.load(other)
    assert_same(dict(vars(a)), dict(vars(b)))
    assert a.averaged is not None and not torch.equal(*(next(iter(w.values())) for w in (a.weights, a.averaged)))


@pytest.fixture(scope="module")
def whole_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """Six steps in two stages, never interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "_VGG_BLOCKS", TINY_VGG)
        patch.setitem(recipes.RECIPES, "tiny", tiny_network)
        return train(tiny_train(), options(photos, tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_resumed_run_continues_the_identical_curve(
    at: int, whole_run: TrainResult, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed within the first stage, at the boundary, and within the second."""
    run = options(photos, tmp_path, save_every=at)
    train_until_killed(tiny_train(), run, at, monkeypatch)
    resumed = train(tiny_train(), replace(run, workers=1))
    assert len(whole_run.losses) == 6 and whole_run.finished
    assert resumed.losses == whole_run.losses[at:]
    assert resumed.steps == 6 and resumed.finished
    assert_same_checkpoint(resumed.checkpoint, whole_run.checkpoint)


def test_work_after_the_last_save_is_done_again_and_logged_once(
    whole_run: TrainResult, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.training.log._WINDOW", 1)
    run = options(photos, tmp_path, save_every=2)
    train_until_killed(tiny_train(), run, 5, monkeypatch)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 5, "lo')
    assert train(tiny_train(), run).losses == whole_run.losses[4:]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))
    assert [line["loss"] for line in lines] == whole_run.losses


def test_max_minutes_stops_saves_and_goes_on(whole_run: TrainResult, photos: Path, tmp_path: Path) -> None:
    run = options(photos, tmp_path, max_minutes=0.0)
    parts = [train(tiny_train(), run) for _ in range(6)]
    assert [part.steps for part in parts] == [1, 2, 3, 4, 5, 6]
    assert [part.finished for part in parts] == [False] * 5 + [True]
    assert [part.losses[0] for part in parts] == whole_run.losses
    assert_same_checkpoint(parts[-1].checkpoint, whole_run.checkpoint)


def test_a_finished_run_has_nothing_to_do(photos: Path, tmp_path: Path) -> None:
    run = options(photos, tmp_path)
    written = train(tiny_train((1,)), run).checkpoint.stat().st_mtime_ns
    again = train(tiny_train((1,)), run)
    assert again.finished and again.steps == 1 and again.losses == []
    assert again.checkpoint.stat().st_mtime_ns == written


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interrupted_run_saves_its_last_whole_step(
    number: signal.Signals,
    raised: type[BaseException],
    whole_run: TrainResult,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes in the middle of step 3, half of whose weights are changed then; as in the program, SIGTERM exits."""
    step = torch.optim.AdamW.step
    calls = iter(range(100))

    def interrupted(self: torch.optim.AdamW, *args: Any) -> Any:
        if next(calls) == 3:
            signal.raise_signal(number)
        return step(self, *args)

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    run = options(photos, tmp_path)
    former = signal.signal(signal.SIGTERM, leave)
    # A background job of a shell is born deaf to it.
    former_int = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", interrupted)
            with pytest.raises(raised):
                train(tiny_train(), run)
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        signal.signal(signal.SIGTERM, former)
        signal.signal(signal.SIGINT, former_int)
    assert Checkpoint.load(tmp_path / "checkpoint.pt").step == 4
    resumed = train(tiny_train(), run)
    assert resumed.losses == whole_run.losses[4:]
    assert_same_checkpoint(resumed.checkpoint, whole_run.checkpoint)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, DataError("photo.jpg: cannot be read")])
def test_what_ends_a_run_between_steps_loses_none(
    raised: Any,
    whole_run: TrainResult,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = loop.batches

    def ending(*args: Any) -> Iterator[Any]:
        for step, stage, batch in whole(*args):
            if step == 2:
                raise raised
            yield step, stage, batch

    run = options(photos, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "batches", ending)
        with pytest.raises((KeyboardInterrupt, DataError)):
            train(tiny_train(), run)
    assert Checkpoint.load(tmp_path / "checkpoint.pt").step == 2
    assert "step 2 is saved" in capsys.readouterr().err
    assert train(tiny_train(), run).losses == whole_run.losses[2:]


def test_a_run_that_ends_before_its_first_step_leaves_the_checkpoint_alone(photos: Path, tmp_path: Path) -> None:
    run = options(photos, tmp_path)
    path = train(tiny_train((1,)), run).checkpoint
    before = path.read_bytes()
    sources = (SourceConfig("davis", "nothing", 1.0),)
    config = tiny_train((1,))
    lacking = replace(config, stages=(replace(config.stages[0], sources=sources),))
    with pytest.raises(DataError, match="nothing"):
        train(lacking, replace(run, resume=False))
    with pytest.raises(DataError, match="no-such-folder: no such folder; --data names"):
        train(config, replace(run, data=tmp_path / "no-such-folder"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_number_that_is_none_ends_the_run_and_keeps_the_last_good_checkpoint(
    broken: str, whole_run: TrainResult, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = ClipLoss.forward, iter(range(100))

    def breaking(self: ClipLoss, logits: Tensor, *rest: Any) -> tuple[Tensor, dict[str, Tensor]]:
        total, terms = whole(self, logits, *rest)
        if next(calls) == 3:
            # The root of zero is zero, its slope is not finite.
            total = total * math.nan if broken == "loss" else total + (logits.sum() * 0).sqrt()
        return total, terms

    run = options(photos, tmp_path, save_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(ClipLoss, "forward", breaking)
        with pytest.raises(ValueError, match=r"step 3 .*learning rate"):
            train(tiny_train(), run)
    kept = Checkpoint.load(tmp_path / "checkpoint.pt")
    assert kept.step == 3
    assert all(tensor.isfinite().all() for tensor in kept.weights.values())
    assert train(tiny_train(), run).losses == whole_run.losses[3:]


def test_a_checkpoint_of_other_settings_is_refused_and_left_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = options(photos, tmp_path)
    path = train(tiny_train((1,)), run).checkpoint
    before = path.read_bytes()
    with pytest.raises(ValueError, match="other settings"):
        train(tiny_train((1,), seed=1), run)
    monkeypatch.setitem(recipes.RECIPES, "tiny", lambda: replace(tiny_network(), cell="relu"))
    with pytest.raises(ValueError, match="another network"):
        train(tiny_train((1,)), run)
    assert path.read_bytes() == before
    assert train(tiny_train((1,), seed=1), replace(run, resume=False)).losses


def test_killed_while_saving_keeps_the_former_checkpoint(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = options(photos, tmp_path)
    path = train(tiny_train((1,)), run).checkpoint
    former = Checkpoint.load(path)

    def half(fields: Any, where: Path) -> None:
        where.write_bytes(b"half a checkpoint")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(Killed):
            replace(former, step=2).save(path)
    assert_same(dict(vars(Checkpoint.load(path))), dict(vars(former)))
    replace(former, step=2).save(path)
    assert Checkpoint.load(path).step == 2


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not one")
    torch.save({"weights": {}}, tmp_path / "another.pt")
    for name in ("checkpoint.pt", "another.pt"):
        with pytest.raises(ValueError, match=rf"{name} is not an s2spp checkpoint, or ") as told:
            Checkpoint.load(tmp_path / name)
        assert "weights_only" not in str(told.value)
    with pytest.raises(IsADirectoryError):
        Checkpoint.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        Checkpoint.load(tmp_path / "missing.pt")


def test_the_averaged_weights_are_the_model(whole_run: TrainResult) -> None:
    checkpoint = Checkpoint.load(whole_run.checkpoint)
    assert checkpoint.averaged is not None
    model = checkpoint.model()
    assert not model.training
    assert_same(model.state_dict(), checkpoint.averaged)
    assert_same(replace(checkpoint, averaged=None).model().state_dict(), checkpoint.weights)


def test_starting_from_another_run_takes_its_averaged_weights(
    whole_run: TrainResult,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = Checkpoint.load(whole_run.checkpoint)
    still = tiny_train((1,), ema=0.0, warmup=10**9, weight_decay=0.0)
    run = options(photos, tmp_path, init_from=whole_run.checkpoint)
    after = Checkpoint.load(train(still, run).checkpoint)
    assert after.averaged is None and start.averaged is not None
    for name, weight in after.weights.items():
        torch.testing.assert_close(weight, start.averaged[name], rtol=0, atol=1e-6)
    # Another network takes what fits, and says that something does not.
    wider = replace(tiny_network(), memories=(MemoryConfig(32, 12, 3), MemoryConfig(16, 10, 3)))
    monkeypatch.setitem(recipes.RECIPES, "tiny", lambda: wider)
    train(still, replace(run, out=tmp_path / "wider"))
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(r"weights of .*; something in initializer, memories, stages does not fit", said)
    other = Checkpoint.load(tmp_path / "wider" / "checkpoint.pt").weights
    torch.testing.assert_close(other["head.mask.weight"], start.averaged["head.mask.weight"], rtol=0, atol=1e-6)


def test_a_gap_makes_clips_longer_and_leaves_its_frames_out(photos: Path, tmp_path: Path) -> None:
    config = tiny_train((2,))
    gapped = replace(config, stages=(replace(config.stages[0], gap=3),))
    run = options(photos, tmp_path, picture_every=1)
    batch = next(iter(loop.batches(gapped, tiny_network(), photos, 0, 0, 0)))[2]
    assert batch.frames.shape[1] == 6 and batch.masks.shape[1] == 5
    assert len(train(gapped, run).losses) == 2


def test_frozen_layers_keep_their_weights(whole_run: TrainResult, photos: Path, tmp_path: Path) -> None:
    config = tiny_train((1,), frozen=4, ema=0.0)
    start = Checkpoint.load(whole_run.checkpoint).averaged
    assert start is not None
    result = train(config, options(photos, tmp_path, init_from=whole_run.checkpoint))
    after = Checkpoint.load(result.checkpoint).weights
    kept = {name for name in after if torch.equal(after[name], start[name])}
    frozen = {f"encoder.blocks.{n}.0.{part}" for n in (0, 1) for part in ("weight", "bias")}
    assert frozen <= kept and not any(name.startswith("encoder.blocks.2") for name in kept)
    # Nobody's weights are not kept.
    with pytest.raises(ValueError, match="they would stay random"):
        train(config, options(photos, tmp_path / "random"))


def test_encoder_weights_go_into_both_encoders(photos: Path, tmp_path: Path) -> None:
    first = encoders.VGG16().blocks[0]
    conv = next(module for module in first.modules() if isinstance(module, nn.Conv2d))
    given = torch.randn_like(conv.weight)
    file = tmp_path / "vgg.safetensors"
    save_file({"conv1_1.weight": given, "conv1_1.bias": torch.zeros_like(conv.bias)}, file)  # type: ignore[arg-type]
    still = tiny_train((1,), warmup=10**9, weight_decay=0.0)
    result = train(still, options(photos, tmp_path / "run", encoder_weights=file))
    weights = Checkpoint.load(result.checkpoint).weights
    torch.testing.assert_close(weights["encoder.blocks.0.0.weight"], given, rtol=0, atol=1e-6)
    torch.testing.assert_close(weights["initializer.encoder.blocks.0.0.weight"][:, :3], given, rtol=0, atol=1e-6)


def test_the_loss_falls_and_the_masks_come_out_on_one_batch_learned_by_heart(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = loop.batches

    def same_batch(config: TrainConfig, *rest: Any) -> Iterator[Any]:
        _, stage, batch = next(iter(whole(config, *rest)))
        for step in range(config.steps):
            yield step, stage, batch

    config = tiny_train((160,), seed=5, first_mask_noise=0.0, warmup=0, encoder_lr=1.0)
    _, _, batch = next(iter(whole(config, tiny_network(), photos, 0, 0, 0)))
    monkeypatch.setattr(loop, "batches", same_batch)
    result = train(config, options(photos, tmp_path))
    assert sum(result.losses[-5:]) < 0.4 * sum(result.losses[:5])
    with torch.no_grad():
        logits = Checkpoint.load(result.checkpoint).model()(batch.frames.float(), batch.first_masks.float()).logits
    predicted = nn.functional.interpolate(logits[:, :, 0], size=(64, 96), mode="bilinear") > 0
    truth = batch.masks > 0
    iou = (predicted & truth).sum() / (predicted | truth).sum()
    assert iou > 0.8


def test_curves_and_pictures_can_be_watched(photos: Path, tmp_path: Path) -> None:
    train(tiny_train((2, 1)), options(photos, tmp_path, picture_every=2))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss/total", "loss/bce", "loss/jaccard", "loss/distance", "learning_rate"} <= set(events.Tags()["scalars"])
    pictures = events.Images("clip")
    # One every two steps, and one of the last.
    assert [picture.step for picture in pictures] == [1, 2]
    # Two predicted frames of 96 pixels beside each other, prediction above truth.
    assert (pictures[0].width, pictures[0].height) in {(96 * 2, 128), (96 * 3, 128)}


def test_the_rate_warms_up_then_falls_as_a_cosine_to_two_percent() -> None:
    config = tiny_train((100, 100), warmup=10)
    rates = [learning_rate(config, config.stages[step // 100], step) for step in range(200)]
    assert rates[0] == pytest.approx(3e-3 / 10)
    assert rates[9] == pytest.approx(3e-3, rel=0.01)
    assert rates[100] == pytest.approx(3e-3 / 2)
    assert rates[199] == pytest.approx(3e-3 * 0.02)
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_the_papers_rate_falls_one_percent_at_a_time() -> None:
    config = tiny_train((100,), schedule="paper", decay_every=40, warmup=0)
    rates = [learning_rate(config, config.stages[0], step) / 3e-3 for step in (0, 39, 40, 79, 80)]
    assert rates == pytest.approx([1, 1, 0.99, 0.99, 0.99**2])


def test_biases_do_not_decay_and_encoders_learn_at_their_share() -> None:
    config = tiny_train(encoder_lr=0.25, weight_decay=0.05)
    network = S2Spp(tiny_network())
    loss = ClipLoss(config.loss, network.config.distance)
    optimizer = _optimizer(config, network, loss)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    named = [*network.named_parameters(), *loss.named_parameters()]
    assert len(groups) == len(named) == sum(len(group["params"]) for group in optimizer.param_groups)
    for name, parameter in named:
        group = groups[id(parameter)]
        assert group["weight_decay"] == (0.05 if name.endswith("weight") else 0.0), name
        assert group["share"] == (0.25 if "encoder." in name else 1.0), name


@pytest.mark.parametrize("name", TRAIN_RECIPES)
def test_shipped_recipes_can_be_trained_and_survive_a_checkpoint(name: str) -> None:
    config = TRAIN_RECIPES[name]()
    config.check(recipes.recipe(config.network).multiple)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_a_checkpoint_does_not_state_is_as_it_was_then() -> None:
    """Before the camera's movement was a setting, 0.3 of all real clips had it; runs of then go on."""
    written = json.loads(json.dumps(TRAIN_RECIPES["light_cpu"]().to_dict()))
    for stage in written["stages"]:
        for source in stage["sources"]:
            del source["dolly_odds"]
    assert TrainConfig.from_dict(written) == TRAIN_RECIPES["light_cpu"]()
    paper = TRAIN_RECIPES["paper_gpu"]()
    assert [source.dolly_odds for source in paper.stages[0].sources] == [0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (64, 80)}, "multiples of 32"),
        ({"first_length": 2}, "3 frames or more"),
        ({"last_length": 2}, "never grow shorter"),
    ],
)
def test_stages_that_cannot_be_trained_are_refused_at_the_start(
    change: dict[str, Any], message: str, photos: Path, tmp_path: Path
) -> None:
    config = tiny_train((1, 1))
    later = replace(config, stages=(config.stages[0], replace(config.stages[1], **change)))
    with pytest.raises(ValueError, match=message):
        train(later, options(photos, tmp_path))
    with pytest.raises(ValueError, match="precision"):
        train(replace(config, precision="16-mixed"), options(photos, tmp_path))  # type: ignore[arg-type]


def test_there_is_no_loss_before_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainLog(tmp_path, 20, 0, enabled=True):
        pass
    assert "0/20" in (said := capsys.readouterr().err) and "nan" not in said and "loss" not in said
    with TrainLog(tmp_path, 20, 0, enabled=True) as log:
        log.step(0, 0.25, {}, 1e-3)
    assert "loss 0.2500" in capsys.readouterr().err
