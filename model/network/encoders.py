"""Encoders: an image to features at strides 2, 4, 8, 16 and 32. They normalise by themselves."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import EncoderName

# (expansion, channels, repeats, stride) of MobileNetV2 1.0 up to stride 32; Sandler et al. 2018, table 2.
_MOBILENET_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
)
_VGG_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class Encoder(nn.Module):
    """`forward(image [B,C,H,W] in 0..255, mask channel (if any) in 0..1) -> {stride: features}`."""

    channels: dict[int, int]

    def load_pretrained(self, path: Path) -> str:
        """Load ImageNet weights from a safetensors file; says in one line what was loaded and what was not.
        Raises FileNotFoundError, or ValueError for weights of another network."""
        raise NotImplementedError

    def up_to(self, stride: int) -> list[nn.Module]:
        """The layers that make the features of `stride` and of finer ones."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        raise NotImplementedError


class _PadConv(nn.Conv2d):
    """Stride-2 convolution padded right and bottom only (SAME), as the published MobileNetV2 was trained."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 2:
        return _PadConv(inputs, outputs, kernel, stride, 0, groups=groups)
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


def _convs(module: nn.Module) -> list[nn.Conv2d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [_conv(inputs, hidden, 1), nn.ReLU6()]
        layers += [_conv(hidden, hidden, 3, stride, hidden), nn.ReLU6(), _conv(hidden, outputs, 1)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(Encoder):
    """MobileNetV2 1.0 without its last 320-channel block; batch norm is folded into the convolutions."""

    def __init__(self, image_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(image_channels, 32, 3, 2), nn.ReLU6())
        blocks: list[nn.Module] = []
        inputs, stride = 32, 2
        # The last block of each stride gives that stride's features.
        self._taps: dict[int, int] = {}
        self.channels = {}
        for expansion, outputs, repeats, first_stride in _MOBILENET_BLOCKS:
            for repeat in range(repeats):
                block_stride = first_stride if repeat == 0 else 1
                blocks.append(_InvertedResidual(inputs, outputs, block_stride, expansion))
                inputs, stride = outputs, stride * block_stride
                self._taps[stride] = len(blocks) - 1
                self.channels[stride] = outputs
        self.blocks = nn.ModuleList(blocks)
        for conv in _convs(self):
            # Not Xavier: it takes the fan-out of a depthwise convolution for hundreds of times what it is.
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        rgb = image[:, :3] / 127.5 - 1.0
        x = self.stem(torch.cat([rgb, image[:, 3:]], dim=1))
        features: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            features |= {stride: x for stride, tap in self._taps.items() if tap == index}
        return features

    def up_to(self, stride: int) -> list[nn.Module]:
        return [self.stem, *self.blocks[: self._taps[stride] + 1]]

    def load_pretrained(self, path: Path) -> str:
        """The file's names sort in the order of the layers (00_conv, 01_dw, ...)."""
        weights = load_file(path)
        names = sorted({name.rsplit(".", 1)[0] for name in weights})
        convs = _convs(self)
        if len(names) < len(convs):
            raise ValueError(f"{path} holds {len(names)} convolutions, MobileNetV2 has {len(convs)}")
        # The file goes on with the last block and the classifier, which this network leaves out.
        for name, conv in zip(names, convs, strict=False):
            _copy_conv(conv, weights, name, path)
        return f"MobileNetV2: {len(convs)} of {len(convs)} convolutions from {path.name}"


class VGG16(Encoder):
    """VGG16, convolutional part: features after each pool (section IV-A). The fully connected layers, which
    would be 4096-wide convolutions at stride 32, are left out: no ConvLSTM channel count of the paper fits
    behind them.

    Weights to load are named conv1_1 .. conv5_3 (.weight, .bias) and take RGB / 255, normalised by ImageNet's
    mean and standard deviation."""

    _MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    mean: Tensor
    std: Tensor

    def __init__(self, image_channels: int = 3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(self._MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self._STD).view(1, 3, 1, 1), persistent=False)
        self.blocks = nn.ModuleList()
        self.channels = {}
        inputs = image_channels
        for index, (outputs, convs) in enumerate(_VGG_BLOCKS):
            layers: list[nn.Module] = []
            for _ in range(convs):
                layers += [_conv(inputs, outputs, 3), nn.ReLU(inplace=True)]
                inputs = outputs
            self.blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
            self.channels[2 << index] = outputs
        for conv in _convs(self):
            xavier_conv(conv)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        rgb = (image[:, :3] - self.mean) / self.std
        x = torch.cat([rgb, image[:, 3:]], dim=1)
        features: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = block(x)
            features[2 << index] = x
        return features

    def up_to(self, stride: int) -> list[nn.Module]:
        return list(self.blocks[: stride.bit_length() - 1])

    def load_pretrained(self, path: Path) -> str:
        weights = load_file(path)
        convs = {
            f"conv{block_index}_{conv_index}": conv
            for block_index, block in enumerate(self.blocks, start=1)
            for conv_index, conv in enumerate(_convs(block), start=1)
        }
        known = [name for name in convs if f"{name}.weight" in weights]
        if not known:
            raise ValueError(f"{path} holds no weights named conv1_1.weight .. conv5_3.weight: not a VGG16 file")
        for name in known:
            _copy_conv(convs[name], weights, name, path)
        missing = [name for name in convs if name not in known]
        rest = f"; {', '.join(missing)} start from Xavier" if missing else ""
        return f"VGG16: {len(known)} of {len(convs)} convolutions from {path.name}{rest}"


def xavier_conv(conv: nn.Conv2d) -> None:
    """What every new convolution starts from (section IV-A)."""
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


def _copy_conv(conv: nn.Conv2d, weights: dict[str, Tensor], name: str, path: Path) -> None:
    """An extra input channel (the initializer's mask) keeps its own small start values."""
    try:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}") from error
    ours = conv.weight.shape
    extra_channel = conv.in_channels == 4 and weight.shape[1] == 3
    if weight.shape != ours and not (extra_channel and weight[:, :1].shape == conv.weight[:, :1].shape):
        raise ValueError(f"{path}: {name}.weight is {tuple(weight.shape)}, the network has {tuple(ours)} there")
    with torch.no_grad():
        conv.weight[:, : weight.shape[1]] = weight.float()
        assert conv.bias is not None
        conv.bias.copy_(bias.float())


def build_encoder(name: EncoderName, image_channels: int = 3) -> Encoder:
    return MobileNetV2(image_channels) if name == "mobilenet_v2" else VGG16(image_channels)
