"""Named recipes, each a whole network configuration. `paper` is S2S++ as published; the others vary it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from model.config import AttentionConfig, DistanceConfig, MemoryConfig, NeckConfig, NetworkConfig

_RNN1, _RNN2, _RNN3 = MemoryConfig(32, 512, 3), MemoryConfig(16, 512, 3), MemoryConfig(8, 256, 5)


def paper() -> NetworkConfig:
    """Table II, last row, and Table III, (R, s) = (20, 1): two skip-memories and the multi-task loss."""
    return NetworkConfig(
        encoder="vgg16",
        memories=(_RNN1, _RNN2, _RNN3),
        decoder=(512, 256, 128, 64, 64),
        distance=DistanceConfig(20, 1),
    )


def base() -> NetworkConfig:
    """Table II, row 1: S2S."""
    return replace(paper(), memories=(_RNN1,), distance=None)


def base_multitask() -> NetworkConfig:
    """Table II, row 2."""
    return replace(paper(), memories=(_RNN1,))


def one_skip() -> NetworkConfig:
    """Table II, row 3."""
    return replace(paper(), memories=(_RNN1, _RNN2), distance=None)


def one_skip_multitask() -> NetworkConfig:
    """Table II, row 4."""
    return replace(paper(), memories=(_RNN1, _RNN2))


def border_20_10() -> NetworkConfig:
    """Table III, row 1: 6 classes."""
    return replace(paper(), distance=DistanceConfig(20, 10))


def border_10_1() -> NetworkConfig:
    """Table III, row 3: 22 classes."""
    return replace(paper(), distance=DistanceConfig(10, 1))


def mask_guidance() -> NetworkConfig:
    """Section III-A: the previous mask instead of the ConvLSTM."""
    return replace(paper(), recurrence="mask_guidance")


def distance_regression() -> NetworkConfig:
    """Future work: the distance itself instead of its classes."""
    return replace(paper(), distance=DistanceConfig(20, 1, "regression"))


def attention() -> NetworkConfig:
    """Future work: attention to the first and to the previous frame."""
    return replace(paper(), attention=AttentionConfig(16, 128, 256))


def previous_mask() -> NetworkConfig:
    """The previous mask as one more input of every memory."""
    return replace(paper(), previous_mask=True)


def tanh_cell() -> NetworkConfig:
    """The bounded cell, for long streams."""
    return replace(paper(), cell="tanh")


def reference_cell() -> NetworkConfig:
    """The cell of the authors' published code."""
    return replace(paper(), cell="reference")


def light() -> NetworkConfig:
    """The shipped model: MobileNetV2 and a neck, three small ConvLSTMs, attention, masks at half resolution. Much of
    its work is done once a frame: a second object costs a third of what the first does."""
    return NetworkConfig(
        encoder="mobilenet_v2",
        neck=NeckConfig((80, 72, 32), (1, 1, 0), coarse_first=True),
        memories=(MemoryConfig(32, 96, 3), MemoryConfig(16, 96, 3, 48, 48), MemoryConfig(8, 48, 3, 32, 32)),
        decoder=(96, 64, 40, 40),
        merge=(48, 32),
        decoder_kernel=3,
        sub_pixel=True,
        cell="tanh",
        distance=DistanceConfig(10, 1),
        attention=AttentionConfig(16, 64, 80),
        previous_mask=True,
        top_down=True,
    )


def light_plain() -> NetworkConfig:
    """`light` without what goes beyond the paper: attention and the previous mask are measured against it."""
    return replace(light(), attention=None, previous_mask=False, top_down=False)


def small(network: NetworkConfig) -> NetworkConfig:
    """A variant of the paper at a size that can be compared on a CPU: MobileNetV2, few channels, masks at half size."""
    channels = {32: 128, 16: 96, 8: 48}
    return replace(
        network,
        encoder="mobilenet_v2",
        memories=tuple(replace(m, channels=channels[m.stride], kernel=3) for m in network.memories),
        decoder=(112, 80, 48, 24),
        decoder_kernel=3,
        cell="tanh",
    )


RECIPES: dict[str, Callable[[], NetworkConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        paper,
        base,
        base_multitask,
        one_skip,
        one_skip_multitask,
        border_20_10,
        border_10_1,
        mask_guidance,
        distance_regression,
        attention,
        previous_mask,
        tanh_cell,
        reference_cell,
        light,
        light_plain,
    )
}


def recipe(name: str) -> NetworkConfig:
    """A network by name; NAME@small is the same variant at the size of `small`."""
    base, at, size = name.partition("@")
    if base not in RECIPES or size not in ("", "small") or at != "@" * bool(size):
        raise ValueError(f"no network {name!r}; there are {', '.join(sorted(RECIPES))}, and each as NAME@small")
    return small(RECIPES[base]()) if size else RECIPES[base]()
