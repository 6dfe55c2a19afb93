"""S2S++ (Azimi et al. 2020) and its variants: initializer, encoder, memories, decoder.

`forward(clip)` runs `encode` over all frames at once and `recur` frame by frame, the same `recur` as `step`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import NetworkConfig
from model.network.attention import FrameAttention
from model.network.decoder import DecoderStage, MaskHead
from model.network.encoders import build_encoder, xavier_conv
from model.network.initializer import Initializer
from model.network.memory import ConvLSTM, MaskGuidance
from model.network.state import RecurrentState

Features = dict[int, Tensor]


class StepOutput(NamedTuple):
    """logits [B,1,h,w] and distance scores [B,K,h,w] (None without the task), on the output grid."""

    logits: Tensor
    distance: Tensor | None


class ClipOutput(NamedTuple):
    """Frames 1..T-1 of a clip: logits [B,T-1,1,h,w], distance scores [B,T-1,K,h,w] or None; state."""

    logits: Tensor
    distance: Tensor | None
    state: RecurrentState


class S2Spp(nn.Module):
    """The network of one `config`: `forward` for clips, `step` for streams, and their three parts."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.encoder)
        channels = self.encoder.channels
        self.initializer = Initializer(config)
        attention = config.attention
        if attention is not None:
            self.key = nn.Conv2d(channels[attention.stride], attention.key_channels, 1)
            if attention.reference:
                self.attend_reference = FrameAttention(attention.key_channels, local=False)
            if attention.previous:
                self.attend_previous = FrameAttention(attention.key_channels, local=True)
                memory = next(m for m in config.memories if m.stride == attention.stride)
                self.remember = nn.Conv2d(memory.channels + 1, attention.value_channels, 1)
        memory_channels = {memory.stride: memory.channels for memory in config.memories}
        self.memories = nn.ModuleDict()
        self.mix = nn.ModuleDict()
        self.stages = nn.ModuleList()
        below = memory_channels[32]
        for index, outputs in enumerate(config.decoder):
            stride = 32 >> index
            if stride in memory_channels:
                self._add_memory(index, stride, below)
            extra = 0 if index == 0 else channels[stride] + memory_channels.get(stride, 0)
            self.stages.append(DecoderStage(below, extra, outputs, config.decoder_kernel))
            below = outputs
        self.head = MaskHead(below, config.distance)
        self._init_new_layers()

    def _add_memory(self, index: int, stride: int, below: int) -> None:
        config = self.config
        memory = next(m for m in config.memories if m.stride == stride)
        inputs = self.encoder.channels[stride]
        if config.previous_mask or config.recurrence == "mask_guidance":
            inputs += 1
        if config.top_down and index > 0:
            inputs += below
        if config.attention is not None and config.attention.stride == stride:
            inputs += config.attention.value_channels * (config.attention.reference + config.attention.previous)
        if memory.inputs:
            self.mix[str(stride)] = nn.Conv2d(inputs, memory.inputs, 1)
            inputs = memory.inputs
        self.memories[str(stride)] = (
            ConvLSTM(inputs, memory.channels, memory.kernel, config.cell)
            if config.recurrence == "convlstm"
            else MaskGuidance(inputs, memory.channels, memory.kernel)
        )

    def _init_new_layers(self) -> None:
        """Xavier for every new convolution (section IV-A); encoders load their own."""
        new: list[nn.Module] = [self.mix, self.stages, self.head]
        if self.config.attention is not None:
            new.append(self.key)
            if self.config.attention.previous:
                new.append(self.remember)
        for parent in new:
            for module in parent.modules():
                if isinstance(module, nn.Conv2d):
                    xavier_conv(module)

    # --- the contract: encode, initialise, recur -------------------------------------------------

    def encode(self, frames: Tensor) -> Features:
        """frames [B,3,H,W] in 0..255 -> features by stride, and the attention key of each frame under 0."""
        features: Features = self.encoder(frames)
        if self.config.attention is not None:
            features[0] = self.key(features[self.config.attention.stride])
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
            changing["previous_mask"] = F.avg_pool2d(mask, config.output_stride)
        if config.attention is not None:
            assert started.value is not None
            if config.attention.reference:
                constant["reference_key"], constant["reference_value"] = features[0], started.value
            if config.attention.previous:
                changing["previous_key"], changing["previous_value"] = features[0], started.value
        return RecurrentState(changing, constant)

    def recur(self, features: Features, state: RecurrentState) -> tuple[StepOutput, RecurrentState]:
        """x~t, (c, h)t-1 -> y^t, (c, h)t (eq. 3 and 4)."""
        config = self.config
        new: dict[str, Tensor] = {}
        hidden: Features = {}
        numbers = {memory.stride: number for number, memory in enumerate(config.memories, start=1)}
        below: Tensor | None = None
        for index, stage in enumerate(self.stages):
            stride = 32 >> index
            if stride in numbers:
                x = self._memory_input(stride, features, state, below)
                hidden[stride] = self._remembered(stride, numbers[stride], x, state, new)
            if below is None:
                below = stage(hidden[stride])
            else:
                extra = [features[stride]] + ([hidden[stride]] if stride in hidden else [])
                below = stage(below, *extra)
        assert below is not None
        logits, distance = self.head(below)
        if "previous_mask" in state.changing:
            new["previous_mask"] = torch.sigmoid(logits)
        if config.attention is not None and config.attention.previous:
            pooled = F.avg_pool2d(torch.sigmoid(logits), config.attention.stride // config.output_stride)
            new["previous_key"] = features[0]
            new["previous_value"] = self.remember(torch.cat([hidden[config.attention.stride], pooled], dim=1))
        return StepOutput(logits, distance), RecurrentState(new, state.constant)

    def _memory_input(self, stride: int, features: Features, state: RecurrentState, below: Tensor | None) -> Tensor:
        config = self.config
        inputs = [features[stride]]
        if "previous_mask" in state.changing:
            inputs.append(F.avg_pool2d(state.changing["previous_mask"], stride // config.output_stride))
        if config.top_down and below is not None:
            inputs.append(below)
        attention = config.attention
        if attention is not None and attention.stride == stride:
            if attention.reference:
                key, value = state.constant["reference_key"], state.constant["reference_value"]
                inputs.append(self.attend_reference(features[0], key, value))
            if attention.previous:
                key, value = state.changing["previous_key"], state.changing["previous_value"]
                inputs.append(self.attend_previous(features[0], key, value))
        x = torch.cat(inputs, dim=1)
        if str(stride) in self.mix:
            x = F.relu(self.mix[str(stride)](x))
        return x

    def _remembered(self, stride: int, number: int, x: Tensor, state: RecurrentState, new: dict[str, Tensor]) -> Tensor:
        memory = self.memories[str(stride)]
        h: Tensor
        if isinstance(memory, MaskGuidance):
            h = memory(x)
            return h
        h, c = memory(x, state.changing[f"rnn{number}_h"], state.changing[f"rnn{number}_c"])
        new[f"rnn{number}_h"], new[f"rnn{number}_c"] = h, c
        return h

    # --- conveniences ----------------------------------------------------------------------------

    def step(self, frame: Tensor, state: RecurrentState) -> tuple[StepOutput, RecurrentState]:
        """One frame [B,3,H,W] in 0..255, one object per item."""
        return self.recur(self.encode(frame), state)

    def forward(self, frames: Tensor, first_mask: Tensor) -> ClipOutput:
        """frames [B,T,3,H,W] in 0..255, T >= 2, first_mask [B,1,H,W] in 0..1 -> outputs of frames 1..T-1."""
        batch, length = frames.shape[:2]
        if length < 2:
            raise ValueError("a clip needs two frames: the one that the mask is given for and one to segment")
        everything = {
            stride: features.view(batch, length, *features.shape[1:])
            for stride, features in self.encode(frames.flatten(0, 1)).items()
        }

        def at(t: int) -> Features:
            return {stride: features[:, t] for stride, features in everything.items()}

        state = self.initialise(frames[:, 0], first_mask, at(0))
        outputs: list[StepOutput] = []
        for t in range(1, length):
            output, state = self.recur(at(t), state)
            outputs.append(output)
        distances = [output.distance for output in outputs if output.distance is not None]
        return ClipOutput(
            torch.stack([output.logits for output in outputs], dim=1),
            torch.stack(distances, dim=1) if distances else None,
            state,
        )
