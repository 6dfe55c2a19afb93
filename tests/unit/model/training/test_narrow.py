"""Narrower first blocks of an encoder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import pytest
import torch
from torch import Tensor, nn

from model.network.encoders import MobileNetV2
from model.training.narrow import narrow


def pictures(count: int) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(1)
    for _ in range(count):
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
    assert narrow(MobileNetV2(early=(16, 48, 72)), published(dead=True), pictures(1), steps=1) < 1e-8


def test_channels_that_never_change_leave_what_they_gave() -> None:
    whole = published(dead=True)
    depthwise = whole.blocks[1].layers[2]  # type: ignore[index]
    depthwise.bias[::2] = 3.0  # as high everywhere
    assert narrow(MobileNetV2(early=(16, 48)), whole, pictures(1), steps=1) < 1e-8


def test_fitting_brings_it_closer() -> None:
    whole = published(dead=False)
    at_first = narrow(MobileNetV2(early=(24, 48, 72)), whole, pictures(1), steps=1)
    encoder = MobileNetV2(early=(24, 48, 72))
    rest = [parameter.clone() for parameter in encoder.blocks[3].parameters()]
    after = narrow(encoder, whole, pictures(30), steps=30)
    assert after < 0.8 * at_first
    assert any(not torch.equal(a, b) for a, b in zip(rest, encoder.blocks[3].parameters(), strict=True))
    for ours, theirs in zip(encoder.blocks[3:].parameters(), whole.blocks[3:].parameters(), strict=True):
        assert torch.equal(ours, theirs)  # as published, from the first block that is not narrower


def test_an_encoder_that_is_wider_than_the_published_one_is_refused() -> None:
    with pytest.raises(ValueError, match="block 1 of the encoder has 96 channels, 97 are wanted"):
        narrow(MobileNetV2(early=(32, 97)), published(dead=False), repeat(next(pictures(1))), steps=1)
