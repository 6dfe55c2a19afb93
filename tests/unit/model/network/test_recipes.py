"""Every recipe, as one network over a clip and as a stream."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.config import MemoryConfig, NetworkConfig
from model.network import S2Spp, encoders, with_gradient
from model.network.decoder import DecoderStage
from model.network.memory import CELL_BOUND
from model.recipes import RECIPES, recipe
from model.training.losses import ClipLoss, LossConfig

HEIGHT, WIDTH = 64, 96
# Convolutions of one frame and of three add up in another order.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def clip(items: int, frames: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(items, frames, 3, height, width, generator=generator) * 255
    mask = torch.zeros(items, 1, height, width)
    mask[..., 10:40, 20:60] = 1
    return pictures, mask


def small(config: NetworkConfig) -> NetworkConfig:
    """The same structure with few channels (together with `few_channels`)."""
    memories = tuple(
        MemoryConfig(m.stride, 6 + 2 * n, m.kernel, min(m.inputs, 8), min(m.hidden, 5))
        for n, m in enumerate(config.memories)
    )
    attention = config.attention and replace(config.attention, key_channels=4, value_channels=6)
    decoder = tuple(10 - n for n in range(len(config.decoder)))
    neck = config.neck and replace(config.neck, channels=(8, 7, 6))
    merge = tuple(6 - n for n in range(len(config.merge)))
    return replace(config, memories=memories, decoder=decoder, merge=merge, attention=attention, neck=neck)


@pytest.fixture
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_VGG_BLOCKS", ((4, 2), (6, 2), (8, 3), (10, 3), (12, 3)))


@pytest.mark.parametrize("name", RECIPES)
def test_a_clip_is_the_same_as_its_frames_one_by_one(name: str) -> None:
    torch.manual_seed(0)
    network = S2Spp(recipe(name)).eval()
    frames, mask = clip(1, 3, 32, 64)
    with torch.no_grad():
        whole = network(frames, mask)
        state = network.initialise(frames[:, 0], mask, network.encode(frames[:, 0]))
        for t in (1, 2):
            output, state = network.step(frames[:, t], state)
            torch.testing.assert_close(output.logits, whole.logits[:, t - 1], **CLOSE)
            if whole.distance is not None:
                assert output.distance is not None
                torch.testing.assert_close(output.distance, whole.distance[:, t - 1], **CLOSE)
    stride = network.config.output_stride
    assert whole.logits.shape == (1, 2, 1, 32 // stride, 64 // stride)
    assert (whole.distance is None) == (network.config.distance is None)
    assert state.changing.keys() == whole.state.changing.keys()
    for key, tensor in state.changing.items():
        torch.testing.assert_close(tensor, whole.state.changing[key], **CLOSE)


@pytest.mark.usefixtures("few_channels")
@pytest.mark.parametrize("name", RECIPES)
def test_every_state_matters(name: str) -> None:
    """A step that ignored one of them would still be equal in a clip and in a stream."""
    torch.manual_seed(0)
    network = S2Spp(small(recipe(name))).eval()
    frames, mask = clip(1, 2)
    with torch.no_grad():
        features = network.encode(frames[:, 1])
        state = network.initialise(frames[:, 0], mask, network.encode(frames[:, 0]))
        output, _ = network.recur(features, state)
        for part in ("changing", "constant"):
            for key, tensor in getattr(state, part).items():
                other = getattr(state, part) | {key: tensor + torch.randn_like(tensor)}
                changed, _ = network.recur(features, state._replace(**{part: other}))
                assert not torch.equal(changed.logits, output.logits), key


@pytest.mark.usefixtures("few_channels")
def test_a_gap_steps_but_neither_learns_nor_answers() -> None:
    torch.manual_seed(0)
    network = S2Spp(small(recipe("light")))
    frames, mask = clip(1, 9)
    assert with_gradient(9, 4) == [1, 2, 7, 8]
    whole, gapped = network(frames, mask), network(frames, mask, 4)
    torch.testing.assert_close(gapped.logits, whole.logits[:, [0, 1, 6, 7]], **CLOSE)
    # What comes after the gap pulls at nothing that came before it, except by the constant states.
    before = network.initializer.start["32"].weight
    assert torch.autograd.grad(gapped.logits[:, 2:].sum(), before, retain_graph=True)[0].abs().sum() == 0
    assert torch.autograd.grad(gapped.logits[:, :2].sum(), before)[0].abs().sum() > 0


@pytest.mark.usefixtures("few_channels")
def test_weights_still_learn_after_a_gap_in_mixed_precision() -> None:
    """Autocast's cache of rounded weights, filled without a gradient, once cut them off."""
    torch.manual_seed(0)
    network = S2Spp(small(recipe("light")))
    frames, mask = clip(1, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(frames, mask, 2)
    output.logits[:, 2:].float().sum().backward()
    for parameter in (network.encoder.stem[0].weight, network.head.mask.weight, network.stages[0].conv.weight):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(("length", "gap"), [(1, 0), (5, 3), (4, -1)])
def test_a_clip_too_short_for_its_gap_is_refused(length: int, gap: int) -> None:
    with pytest.raises(ValueError, match="first frame and one to segment"):
        with_gradient(length, gap)


@pytest.mark.usefixtures("few_channels")
@pytest.mark.parametrize("name", RECIPES)
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    """Distributed training waits for ever for a parameter that gets none."""
    torch.manual_seed(0)
    config = small(recipe(name))
    network = S2Spp(config)
    frames, mask = clip(2, 3)
    output = network(frames, mask)
    truth = mask.expand(2, 2, HEIGHT, WIDTH)
    distances = None if output.distance is None else torch.ones_like(output.distance[:, :, 0])
    total, _ = ClipLoss(LossConfig(), config.distance)(output.logits, output.distance, truth, distances)
    total.backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.usefixtures("few_channels")
@pytest.mark.parametrize("name", RECIPES)
def test_the_states_are_those_of_the_contract(name: str) -> None:
    config = small(recipe(name))
    network = S2Spp(config).eval()
    frames, mask = clip(2, 2)
    with torch.no_grad():
        state = network.initialise(frames[:, 0], mask, network.encode(frames[:, 0]))
        after = network.step(frames[:, 1], state)[1]
    expected = {}
    if config.recurrence == "convlstm":
        for number, memory in enumerate(config.memories, start=1):
            for part in "hc":
                shape = (2, memory.channels, HEIGHT // memory.stride, WIDTH // memory.stride)
                expected[f"rnn{number}_{part}"] = shape
    if config.previous_mask or config.recurrence == "mask_guidance":
        expected["previous_mask"] = (2, 1, HEIGHT // config.head_stride, WIDTH // config.head_stride)
    constant = {}
    if config.attention:
        cells = (HEIGHT // config.attention.stride, WIDTH // config.attention.stride)
        constant = {"reference_key": (2, 4, *cells), "reference_value": (2, 6, *cells)}
        expected |= {"previous_key": (2, 4, *cells), "previous_value": (2, 6, *cells)}
    assert {k: tuple(v.shape) for k, v in state.changing.items()} == expected
    assert {k: tuple(v.shape) for k, v in state.constant.items()} == constant
    assert {k: v.shape for k, v in after.changing.items()} == {k: v.shape for k, v in state.changing.items()}
    assert all(after.constant[key] is state.constant[key] for key in constant)


@pytest.mark.usefixtures("few_channels")
def test_mask_guidance_carries_the_previous_mask_and_nothing_else() -> None:
    network = S2Spp(small(recipe("mask_guidance"))).eval()
    frames, mask = clip(1, 2)
    assert not list(network.initializer.parameters())
    with torch.no_grad():
        features = network.encode(frames[:, 0])
        here = network.initialise(frames[:, 0], mask, features)
        assert list(here.changing) == ["previous_mask"] and not here.constant
        torch.testing.assert_close(here.changing["previous_mask"], mask)
        output, after = network.step(frames[:, 1], here)
        elsewhere = network.initialise(frames[:, 0], mask.roll(30, dims=-1), features)
        moved, _ = network.step(frames[:, 1], elsewhere)
    torch.testing.assert_close(after.changing["previous_mask"], torch.sigmoid(output.logits))
    assert not torch.allclose(moved.logits, output.logits)


@pytest.mark.usefixtures("few_channels")
@pytest.mark.parametrize("name", ["paper", "reference_cell", "tanh_cell", "light"])
def test_the_state_stays_within_float16_however_long_the_stream(name: str) -> None:
    torch.manual_seed(0)
    network = S2Spp(small(recipe(name))).eval()
    for parameter in network.memories.parameters():
        # A cell that only ever adds: forgets nothing, lets everything in.
        parameter.data.fill_(1.0)
    frames, mask = clip(1, 1)
    with torch.no_grad():
        features = network.encode(frames[:, 0])
        state = network.initialise(frames[:, 0], mask, features)
        for _ in range(100):
            _, state = network.recur(features, state)
    for key in (f"rnn{number}_{part}" for number in network.numbers.values() for part in "hc"):
        assert state.changing[key].isfinite().all()
        assert state.changing[key].abs().max() <= CELL_BOUND


def test_a_clip_of_one_frame_is_refused() -> None:
    frames, mask = clip(1, 1)
    with pytest.raises(ValueError, match="one to segment"):
        S2Spp(recipe("light"))(frames, mask)


def test_a_sub_pixel_convolution_can_do_what_bilinear_up_sampling_and_a_convolution_do() -> None:
    """So the light networks lose nothing by it: away from the border, the one is a case of the other."""
    torch.manual_seed(0)
    smooth = DecoderStage(0, [5], 3, 3, 3, "bilinear")
    cells = DecoderStage(0, [5], 3, 3, 3, "sub_pixel")
    # Row `shift` of 2: what each of the 3 fine taps takes of the 3 coarse cells.
    takes = torch.tensor(
        [[[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25]], [[0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75]]]
    )
    with torch.no_grad():
        smooth.conv.bias.normal_()
        cells.conv.weight.copy_(torch.einsum("ocyx,dyj,exk->deocjk", smooth.conv.weight, takes, takes).flatten(0, 2))
        cells.conv.bias.copy_(smooth.conv.bias.repeat(4))
        x = torch.randn(2, 5, 6, 7)
        inner = (..., slice(2, -2), slice(2, -2))
        torch.testing.assert_close(cells(None, x)[inner], smooth(None, x)[inner], **CLOSE)
