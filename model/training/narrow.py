"""The narrower first blocks of a network's encoder (NetworkConfig.early), out of an encoder as it was published.

Each keeps the channels to which what it gives owes most; then all of them are fitted to what the published ones give on
the pictures that the run trains on. A third of the stem's channels is never on: 16 for 32 cost 0.3 % of the variance.
Half or two thirds of the others' cost 11 to 21 % at first, and 5 to 6 % once they are fitted (held-out videos)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from model.network.encoders import InvertedResidual, MobileNetV2

_RATE = 1.5e-3


def narrow(
    encoder: MobileNetV2, published: MobileNetV2, pictures: Iterator[Tensor], steps: int, fabric: Fabric
) -> float:
    """Give `encoder` weights that do what those of `published` do. `pictures`: [B,3,H,W] in 0..255, at least one for
    each of `steps`. Returns how far its narrower blocks were off in the last step, the worst one, as a share of the
    variance. Each rank does the same; both encoders go to the fabric's device."""
    encoder.to(fabric.device)
    published.to(fabric.device).requires_grad_(False)
    fitted = [p for part in (encoder.stem, *encoder.blocks[: len(encoder.early)]) for p in part.parameters()]
    optimizer = torch.optim.Adam(fitted)
    off = torch.zeros(1)
    shown = track(range(steps), "fitting the encoder", console=Console(stderr=True), disable=not fabric.is_global_zero)
    for step, given in zip(shown, pictures, strict=False):
        picture = given.to(fabric.device, memory_format=torch.channels_last)
        if step == 0:
            _keep_what_matters(encoder, published, picture)
        optimizer.param_groups[0]["lr"] = _RATE * max(0.02, 0.5 * (1 + math.cos(math.pi * step / steps)))
        with fabric.autocast():
            off = _off(encoder, published, picture)
        optimizer.zero_grad()
        off.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    optimizer.zero_grad()
    return float(off.detach().max())


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
    found, wanted = (islice(each.by_block(picture), len(encoder.early)) for each in (encoder, published))
    return torch.stack([_share(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)])


def _share(found: Tensor, wanted: Tensor) -> Tensor:
    variance = wanted.float().var(dim=(0, 2, 3), keepdim=True)
    # A channel that is as good as still counts by what the others are like.
    return ((found.float() - wanted.float()).square() / variance.clamp(min=1e-3 * float(variance.mean()))).mean()
