"""S2S++ (Azimi et al. 2020) and its variants: initializer, encoder, memories, decoder.

`forward(clip)` runs `encode` over all frames that it learns from at once, and `recur` frame by frame, as `step` does.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import MemoryConfig, NetworkConfig
from model.network.attention import FrameAttention
from model.network.decoder import DecoderStage, MaskHead, Up
from model.network.encoders import build_encoder, xavier_conv
from model.network.initializer import Initializer
from model.network.memory import ConvLSTM, MaskGuidance
from model.network.neck import Neck
from model.network.split_conv import SplitConv2d
from model.network.state import RecurrentState

Features = dict[str, Tensor]
"""What a frame [B,...] gives to the objects on it: `key` for attention, and its part of every convolution that also
sees an object's own tensors: `memoryS` and `mergeS` at stride S."""


class _SeesFrames(Protocol):
    def of_frame(self, features: Tensor) -> Tensor: ...


class StepOutput(NamedTuple):
    """Mask logits [B,1,h,w] on the output grid; distance scores [B,K,h',w'] (None without the task) on the head's."""

    logits: Tensor
    distance: Tensor | None


class ClipOutput(NamedTuple):
    """Frames 1..T-1 of a clip: logits [B,T-1,1,h,w], distance scores [B,T-1,K,h',w'] or None; state."""

    logits: Tensor
    distance: Tensor | None
    state: RecurrentState


class S2Spp(nn.Module):
    """The network of one `config`: `forward` for clips, `step` for streams, and their three parts."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder)
        self.neck = Neck(self.encoder.channels, config.neck) if config.neck else None
        # What memories and decoder see, by stride.
        self.channels = self.neck.channels if self.neck else self.encoder.channels
        self.initializer = Initializer(config)
        attention = config.attention
        if attention is not None:
            self.key = nn.Conv2d(self.encoder.channels[attention.stride], attention.key_channels, 1)
            xavier_conv(self.key)
            if attention.reference:
                self.attend_reference = FrameAttention(attention.key_channels, local=False)
            if attention.previous:
                self.attend_previous = FrameAttention(attention.key_channels, local=True)
                memory = next(m for m in config.memories if m.stride == attention.stride)
                self.remember = nn.Conv2d(memory.channels + 1, attention.value_channels, 1)
                xavier_conv(self.remember)
        self.numbers = {memory.stride: number for number, memory in enumerate(config.memories, start=1)}
        self.memories = nn.ModuleDict()
        self.mix = nn.ModuleDict()
        self.stages = nn.ModuleList()
        below = 0
        for index, outputs in enumerate(config.decoder):
            stride = 32 >> index
            own = [below] if index else []
            if stride in self.numbers:
                memory = config.memories[self.numbers[stride] - 1]
                self._add_memory(memory, below)
                own.append(memory.channels)
            frame = self.channels[stride] if index else 0
            up: Up = "bilinear"
            if config.sub_pixel:
                # The last one leaves it to the head.
                up = "none" if index == len(config.decoder) - 1 else "sub_pixel"
            merged = config.merge[index - 1] if 0 < index <= len(config.merge) else outputs
            self.stages.append(DecoderStage(frame, own, merged, outputs, config.decoder_kernel, up))
            below = outputs
        self.head = MaskHead(below, config.distance, sub_pixel=config.sub_pixel)

    def _add_memory(self, memory: MemoryConfig, below: int) -> None:
        config = self.config
        own = [1] if config.previous_mask or config.recurrence == "mask_guidance" else []
        if config.attention is not None and config.attention.stride == memory.stride:
            own += [config.attention.value_channels] * (config.attention.reference + config.attention.previous)
        if config.top_down and below:
            own.append(below)
        frame = self.channels[memory.stride]
        if memory.inputs:
            self.mix[str(memory.stride)] = SplitConv2d(frame, own, memory.inputs, 1)
            frame, own = 0, [memory.inputs]
        self.memories[str(memory.stride)] = (
            ConvLSTM(frame, own, memory.channels, memory.kernel, config.cell, memory.hidden)
            if config.recurrence == "convlstm"
            else MaskGuidance(frame, own, memory.channels, memory.kernel)
        )

    # --- the contract: encode, initialise, recur -------------------------------------------------

    def encode(self, frames: Tensor) -> Features:
        """frames [B,3,H,W] in 0..255 -> what they give to every object on them."""
        seen: dict[int, Tensor] = self.encoder(frames)
        features: Features = {}
        if self.config.attention is not None:
            # Not of the neck's features: what looks alike is told best by what many pictures taught.
            features["key"] = self.key(seen[self.config.attention.stride])
        if self.neck is not None:
            seen = self.neck(seen)
        for stride in self.numbers:
            name = str(stride)
            takes = self.mix[name] if name in self.mix else self.memories[name]
            features[f"memory{stride}"] = cast(_SeesFrames, takes).of_frame(seen[stride])
        for index, stage in enumerate(self.stages):
            if index:
                stride = 32 >> index
                features[f"merge{stride}"] = cast(_SeesFrames, stage).of_frame(seen[stride])
        return features

    def initialise(self, frame: Tensor, mask: Tensor, features: Features) -> RecurrentState:
        """(c0, h0) = Initializer(x0, y0) (eq. 1). frame [B,3,H,W] in 0..255, mask [B,1,H,W] in 0..1;
        `features` is encode(frame): the keys that later frames are compared with."""
        started = self.initializer(frame, mask)
        changing: dict[str, Tensor] = {}
        constant: dict[str, Tensor] = {}
        config = self.config
        if config.recurrence == "convlstm":
            for number, memory in enumerate(config.memories, start=1):
                changing[f"rnn{number}_h"], changing[f"rnn{number}_c"] = started.memory[memory.stride]
        if config.previous_mask or config.recurrence == "mask_guidance":
            changing["previous_mask"] = F.avg_pool2d(mask, config.head_stride)
        if config.attention is not None:
            assert started.value is not None
            if config.attention.reference:
                constant["reference_key"], constant["reference_value"] = features["key"], started.value
            if config.attention.previous:
                changing["previous_key"], changing["previous_value"] = features["key"], started.value
        return RecurrentState(changing, constant)

    def recur(self, features: Features, state: RecurrentState) -> tuple[StepOutput, RecurrentState]:
        """x~t, (c, h)t-1 -> y^t, (c, h)t (eq. 3 and 4)."""
        config = self.config
        new: dict[str, Tensor] = {}
        hidden: dict[int, Tensor] = {}
        below: Tensor | None = None
        for index, stage in enumerate(self.stages):
            stride = 32 >> index
            own = [] if below is None else [below]
            if stride in self.numbers:
                hidden[stride] = self._remembered(stride, features, state, below, new)
                own.append(hidden[stride])
            below = stage(features.get(f"merge{stride}"), *own)
        assert below is not None
        logits, distance = self.head(below)
        # On the head's grid it is as small as the states, and what the levels need of it is cheaper to pool.
        probability = torch.sigmoid(logits)
        if config.sub_pixel:
            probability = F.avg_pool2d(probability, 2)
        if "previous_mask" in state.changing:
            new["previous_mask"] = probability
        if config.attention is not None and config.attention.previous:
            pooled = F.avg_pool2d(probability, config.attention.stride // config.head_stride)
            new["previous_key"] = features["key"]
            new["previous_value"] = self.remember(torch.cat([hidden[config.attention.stride], pooled], dim=1))
        return StepOutput(logits, distance), RecurrentState(new, state.constant)

    def _remembered(
        self, stride: int, features: Features, state: RecurrentState, below: Tensor | None, new: dict[str, Tensor]
    ) -> Tensor:
        """The memory's new h, which with c goes into `new`."""
        of_frame: Tensor | None = features[f"memory{stride}"]
        own = self._own_inputs(stride, features, state, below)
        if str(stride) in self.mix:
            own = [F.relu(self.mix[str(stride)](of_frame, *own))]
            of_frame = None
        memory = self.memories[str(stride)]
        h: Tensor
        if isinstance(memory, MaskGuidance):
            h = memory(of_frame, own)
            return h
        number = self.numbers[stride]
        h, c = memory(of_frame, own, state.changing[f"rnn{number}_h"], state.changing[f"rnn{number}_c"])
        new[f"rnn{number}_h"], new[f"rnn{number}_c"] = h, c
        return h

    def _own_inputs(self, stride: int, features: Features, state: RecurrentState, below: Tensor | None) -> list[Tensor]:
        """What a memory sees of its object beside h: cues (previous mask, what attention reads), coarser levels."""
        config = self.config
        own: list[Tensor] = []
        if "previous_mask" in state.changing:
            own.append(F.avg_pool2d(state.changing["previous_mask"], stride // config.head_stride))
        attention = config.attention
        if attention is not None and attention.stride == stride:
            if attention.reference:
                key, value = state.constant["reference_key"], state.constant["reference_value"]
                own.append(self.attend_reference(features["key"], key, value))
            if attention.previous:
                key, value = state.changing["previous_key"], state.changing["previous_value"]
                own.append(self.attend_previous(features["key"], key, value))
        if config.top_down and below is not None:
            own.append(below)
        return own

    # --- conveniences ----------------------------------------------------------------------------

    def step(self, frame: Tensor, state: RecurrentState) -> tuple[StepOutput, RecurrentState]:
        """One frame [B,3,H,W] in 0..255, one object per item."""
        return self.recur(self.encode(frame), state)

    def forward(self, frames: Tensor, first_mask: Tensor, gap: int = 0) -> ClipOutput:
        """frames [B,T,3,H,W] in 0..255, T >= 2, first_mask [B,1,H,W] in 0..1 -> outputs of frames 1..T-1.

        `gap`: the steps over so many frames in the middle have neither gradient nor output (`with_gradient` lists
        the others): what a long stream does to the state is learned at the price of a short clip."""
        trained = with_gradient(frames.shape[1], gap)
        features = self._of_frames(frames[:, [0, *trained]])
        state = self.initialise(frames[:, 0], first_mask, features[0])
        outputs: list[StepOutput] = []
        last = 0
        for t, of_frame in zip(trained, features[1:], strict=True):
            if t > last + 1:
                state = self._without_gradient(frames[:, last + 1 : t], state)
            output, state = self.recur(of_frame, state)
            outputs.append(output)
            last = t
        distances = [output.distance for output in outputs if output.distance is not None]
        return ClipOutput(
            torch.stack([output.logits for output in outputs], dim=1),
            torch.stack(distances, dim=1) if distances else None,
            state,
        )

    def _of_frames(self, frames: Tensor) -> list[Features]:
        """frames [B,T,3,H,W], encoded all at once -> the features of each of the T."""
        batch, length = frames.shape[:2]
        everything = {
            name: tensor.view(batch, length, *tensor.shape[1:])
            for name, tensor in self.encode(frames.flatten(0, 1)).items()
        }
        return [{name: tensor[:, t] for name, tensor in everything.items()} for t in range(length)]

    @torch.no_grad()
    def _without_gradient(self, frames: Tensor, state: RecurrentState) -> RecurrentState:
        constant = state.constant
        # One by one: all at once they fill gigabytes of fresh memory, which cost a CPU a third of a whole step.
        for frame in frames.unbind(1):
            _, state = self.recur(self.encode(frame), state)
        # Autocast keeps the weights that it rounded here, cut from the graph, and would use them again.
        torch.clear_autocast_cache()
        return RecurrentState(state.changing, constant)


def with_gradient(length: int, gap: int = 0) -> list[int]:
    """The frames that a clip of `length` is trained on: all but the first, and but `gap` in the middle."""
    trained = length - 1 - gap
    if gap < 0 or trained < (2 if gap else 1):
        raise ValueError(
            f"a clip of {length} frames with a gap of {gap}: needs the first frame and one to segment, and with a gap "
            "one before it and one after it"
        )
    before = trained // 2 if gap else trained
    return [*range(1, 1 + before), *range(1 + before + gap, length)]
