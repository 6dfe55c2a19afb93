"""Narrower first blocks of an encoder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from model.network.encoders import MobileNetV2
from model.training.narrow import narrow

FABRIC = Fabric(accelerator="cpu", devices=1, precision="32-true")


def pictures(seed: int) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(seed)
    while True:
        coarse = 255 * torch.rand(2, 3, 8, 12, generator=random)
        yield nn.functional.interpolate(coarse, size=(64, 96), mode="bilinear")


def published(*, dead: bool) -> MobileNetV2:
    """`dead`: every other inner channel of the first three blocks is never on."""
    torch.manual_seed(0)
    encoder = MobileNetV2().requires_grad_(False)
    depthwise = [encoder.blocks[0].layers[0], encoder.blocks[1].layers[2], encoder.blocks[2].layers[2]]  # type: ignore
    for conv in depthwise if dead else []:
        conv.weight[::2], conv.bias[::2] = 0.0, -1.0
    return encoder


def test_channels_that_are_never_on_are_not_missed() -> None:
    """Without any fit: all else is there, and stands where it belongs."""
    assert narrow(MobileNetV2(early=(16, 48, 72)), published(dead=True), pictures(1), 1, FABRIC) < 1e-8


def test_channels_that_never_change_leave_what_they_gave() -> None:
    whole = published(dead=True)
    depthwise = whole.blocks[1].layers[2]  # type: ignore[index]
    depthwise.bias[::2] = 3.0  # as high everywhere
    assert narrow(MobileNetV2(early=(16, 48)), whole, pictures(1), 1, FABRIC) < 1e-8


def test_fitting_brings_it_closer_on_other_pictures_too() -> None:
    whole = published(dead=False)
    held_out = next(pictures(7))

    def off(steps: int) -> tuple[float, MobileNetV2]:
        encoder = MobileNetV2(early=(24, 48, 72))
        narrow(encoder, whole, pictures(1), steps, FABRIC)
        ours, theirs = (list(islice(each.by_block(held_out), 3))[-1] for each in (encoder, whole))
        return float((ours - theirs).square().mean() / theirs.var()), encoder

    (at_first, _), (after, encoder) = off(1), off(40)
    assert after < 0.8 * at_first
    for ours, theirs in zip(encoder.blocks[3:].parameters(), whole.blocks[3:].parameters(), strict=True):
        assert torch.equal(ours, theirs)  # as published, from the first block that is not narrower


@pytest.mark.parametrize(("early", "said"), [((32, 97), "block 1 has 96 channels"), ((8,) * 17, "17 blocks of 16")])
def test_what_is_wider_or_longer_than_the_published_one_is_refused(early: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MobileNetV2(early=early)
