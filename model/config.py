"""The configuration of a network: one typed object that goes through JSON. model/recipes.py builds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

EncoderName = Literal["vgg16", "mobilenet_v2"]
Cell = Literal["tanh", "relu", "reference"]
Recurrence = Literal["convlstm", "mask_guidance"]
DistanceKind = Literal["classes", "regression"]


@dataclass(frozen=True)
class MemoryConfig:
    """One recurrent memory on the encoder's features of `stride` (section III-A, IV-B). `inputs`: what the
    memory sees is first mixed down to so many channels by a 1x1 convolution; `hidden`: what its gates see of its own
    last output likewise. 0 leaves either as it is."""

    stride: int
    channels: int
    kernel: int
    inputs: int = 0
    hidden: int = 0


@dataclass(frozen=True)
class DistanceConfig:
    """The distance task (eq. 6): truncation `radius` R and `bin_size` s, in cells of the head's grid."""

    radius: int = 20
    bin_size: int = 1
    kind: DistanceKind = "classes"

    def __post_init__(self) -> None:
        if self.radius < 1 or self.bin_size < 1 or 2 * self.radius % self.bin_size:
            raise ValueError(f"bins of {self.bin_size} pixels do not divide -{self.radius} .. {self.radius}")

    @property
    def classes(self) -> int:
        """2 R / s + 2 classes; one value when the distance is regressed."""
        return 1 if self.kind == "regression" else 2 * self.radius // self.bin_size + 2


@dataclass(frozen=True)
class AttentionConfig:
    """Beyond the paper: the current frame attends to the first frame (constant state) and to the previous
    frame, and what it reads goes into the memory of `stride`."""

    stride: int = 16
    key_channels: int = 64
    value_channels: int = 112
    reference: bool = True
    previous: bool = True


@dataclass(frozen=True)
class NeckConfig:
    """A top-down fusion of the encoder's features, made once a frame however many objects follow it: `channels` at
    strides 16, 8 and 4, and how many residual convolutions (`depth`) each has. `coarse_first`: what comes from the
    coarser stride is convolved there, and the result up-sampled: a quarter of the multiplications."""

    channels: tuple[int, int, int]
    depth: tuple[int, int, int] = (0, 0, 0)
    coarse_first: bool = False

    @staticmethod
    def from_dict(data: dict[str, Any]) -> NeckConfig:
        return NeckConfig(**data | {name: tuple(data[name]) for name in ("channels", "depth") if name in data})


@dataclass(frozen=True)
class NetworkConfig:
    """S2S++ and every variant of it.

    memories: coarse to fine; the first is the bottleneck (RNN1), the others are skip-memories (RNN2, RNN3).
    neck: None: memories and decoder see the encoder's own features.
    decoder: channels after each x2 up-sampling, from the bottleneck on; five stages end at full
        resolution, fewer stop earlier and the mask is resized from there.
    merge: channels of the 1x1 merges that a convolution follows, from the second stage on; of those that it does not
        name, as many as the stage gives.
    sub_pixel: not bilinear up-sampling, but convolutions that make the four pixels of each cell (Shi et al. 2016); the
        last stage leaves that to the head. As many multiplications, at a lower resolution and on more channels.
    cell: activations of the ConvLSTM. tanh; relu (S2S: ReLU in place of tanh); reference (sigmoid
        candidate, ReLU output, as in the authors' published code).
    recurrence: convlstm, or mask_guidance (section III-A: the previous mask instead of the ConvLSTM).
    previous_mask: the previous frame's probability as one more input of every memory.
    top_down: a skip-memory also sees what the decoder made of the coarser levels.
    pixel_budget, multiple: see s2spp.geometry.
    """

    encoder: EncoderName
    memories: tuple[MemoryConfig, ...]
    decoder: tuple[int, ...]
    decoder_kernel: int = 5
    merge: tuple[int, ...] = ()
    neck: NeckConfig | None = None
    sub_pixel: bool = False
    cell: Cell = "relu"
    recurrence: Recurrence = "convlstm"
    distance: DistanceConfig | None = None
    attention: AttentionConfig | None = None
    previous_mask: bool = False
    top_down: bool = False
    pixel_budget: int = 256 * 448
    multiple: int = 32

    def __post_init__(self) -> None:
        strides = [memory.stride for memory in self.memories]
        if not strides or strides[0] != 32 or strides != sorted(set(strides), reverse=True):
            raise ValueError(f"memories go from stride 32 to finer ones, each once; got strides {strides}")
        if not 1 <= len(self.decoder) <= 5:
            raise ValueError(f"the decoder has 1 to 5 stages, got {len(self.decoder)}")
        if not set(strides) <= {32 >> stage for stage in range(len(self.decoder))}:
            raise ValueError(f"{len(self.decoder)} decoder stages do not reach every memory of strides {strides}")
        merges = len(self.decoder) - 1 - self.sub_pixel
        if len(self.merge) > merges or 0 in self.merge:
            raise ValueError(f"merge names channels of {merges} merges at most, each 1 or more; got {self.merge}")
        if self.recurrence == "mask_guidance" and any(memory.hidden for memory in self.memories):
            raise ValueError("hidden narrows what a ConvLSTM sees of its own output; mask guidance has none")
        if self.neck is not None and len(self.decoder) > 4:
            raise ValueError("a neck has features down to stride 4: the decoder then has 4 stages at most")
        if self.multiple % 32:
            raise ValueError(f"frames are multiples of the encoder's stride, 32; got multiple {self.multiple}")
        self._check_attention(strides)

    def _check_attention(self, strides: list[int]) -> None:
        attention = self.attention
        if attention is None:
            return
        if self.recurrence != "convlstm":
            raise ValueError("attention reads what the initializer made; mask guidance has no initializer")
        if attention.stride not in strides:
            raise ValueError(f"attention at stride {attention.stride} needs a memory there; memories: {strides}")
        if not (attention.reference or attention.previous):
            raise ValueError("attention to neither the first nor the previous frame: leave it out (None)")

    @property
    def output_stride(self) -> int:
        """Pixels of the model's grid per output cell, along each side."""
        return 32 >> len(self.decoder)

    @property
    def head_stride(self) -> int:
        """The same of the head's grid: where distances are predicted and the previous mask is remembered."""
        return 2 * self.output_stride if self.sub_pixel else self.output_stride

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> NetworkConfig:
        data = dict(data)
        data["memories"] = tuple(MemoryConfig(**memory) for memory in data["memories"])
        data |= {name: tuple(data[name]) for name in ("decoder", "merge") if name in data}
        if data.get("neck"):
            data["neck"] = NeckConfig.from_dict(data["neck"])
        if data.get("distance"):
            data["distance"] = DistanceConfig(**data["distance"])
        if data.get("attention"):
            data["attention"] = AttentionConfig(**data["attention"])
        return NetworkConfig(**data)
