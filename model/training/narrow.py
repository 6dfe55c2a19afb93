"""The narrower first blocks of a network's encoder (NetworkConfig.early), out of an encoder as it was published.

Each keeps the channels to which what it gives owes most; then all of them are fitted to what the published ones give on
the pictures that the run trains on. A third of the stem's channels is never on: 16 for 32 cost 0.3 % of the variance.
Half or two thirds of the others' cost 11 to 21 % at first, and 5 to 6 % once they are fitted (held-out videos)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, islice

import torch
from rich.progress import track
from torch import Tensor, nn

from model.network.encoders import InvertedResidual, MobileNetV2

_RATE = 1.5e-3


def narrow(encoder: MobileNetV2, published: MobileNetV2, pictures: Iterator[Tensor], steps: int) -> float:
    """Give `encoder` weights that do what those of `published` do. `pictures`: [B,3,H,W] in 0..255, one for each of
    `steps`; where there are fewer, it is fitted less. Returns how far its narrower blocks were off in the last step,
    the worst one, as a share of the variance. ValueError where a block is wider than the published one."""
    first = next(pictures)
    _keep_what_matters(encoder, published, first)
    fitted = [p for part in (encoder.stem, *encoder.blocks[: len(encoder.early)]) for p in part.parameters()]
    optimizer = torch.optim.Adam(fitted)
    off = math.inf
    for step, picture in enumerate(track(chain([first], pictures), "fitting the encoder's narrower blocks", steps)):
        optimizer.param_groups[0]["lr"] = _RATE * max(0.02, 0.5 * (1 + math.cos(math.pi * step / steps)))
        losses = _off(encoder, published, picture)
        off = float(losses.detach().max())
        optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad()
    return off


@torch.no_grad()
def _keep_what_matters(encoder: MobileNetV2, published: MobileNetV2, picture: Tensor) -> None:
    """Copy all that fits and, of the narrower blocks, the channels that give most; the others' mean is kept."""
    ours = encoder.state_dict()
    fitting = {name: value for name, value in published.state_dict().items() if value.shape == ours[name].shape}
    encoder.load_state_dict(fitting, strict=False)
    x = published.stem(published.normalised(picture))
    for number, width in enumerate(encoder.early):
        block = published.blocks[number]
        assert isinstance(block, InvertedResidual)
        inside = block.layers[:-1](x)
        x = block(x)
        to, given = _convolutions(encoder, number), _convolutions(published, number)
        last = given[-1].weight[:, :, 0, 0]
        if width > last.shape[1]:
            raise ValueError(f"early: block {number} of the encoder has {last.shape[1]} channels, {width} are wanted")
        order = (inside.var(dim=(0, 2, 3)) * last.square().sum(dim=0)).argsort(descending=True)
        kept, dropped = order[:width].sort().values, order[width:]
        for narrower, conv in zip(to[:-1], given[:-1], strict=True):
            narrower.weight.copy_(conv.weight[kept])
            _bias(narrower).copy_(_bias(conv)[kept])
        to[-1].weight.copy_(given[-1].weight[:, kept])
        _bias(to[-1]).copy_(_bias(given[-1]) + last[:, dropped] @ inside.mean(dim=(0, 2, 3))[dropped])


def _convolutions(encoder: MobileNetV2, number: int) -> list[nn.Conv2d]:
    """The one that makes a block's inner channels (of the first one it is the stem), depthwise, and out of them."""
    parts = (encoder.stem, encoder.blocks[0]) if number == 0 else (encoder.blocks[number],)
    return [module for part in parts for module in part.modules() if isinstance(module, nn.Conv2d)]


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _off(encoder: MobileNetV2, published: MobileNetV2, picture: Tensor) -> Tensor:
    """[blocks]: squared differences as a share of the variance, each channel by its own."""
    count = len(encoder.early)
    with torch.no_grad():
        wanted = list(islice(published.by_block(picture), count))
    found = islice(encoder.by_block(picture), count)
    return torch.stack([_share(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)])


def _share(found: Tensor, wanted: Tensor) -> Tensor:
    variance = wanted.var(dim=(0, 2, 3), keepdim=True)
    # A channel that is as good as still counts by what the others are like.
    return ((found - wanted).square() / variance.clamp(min=1e-3 * float(variance.mean()))).mean()
