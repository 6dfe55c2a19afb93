"""The two graphs of the model contract.

F frames, N objects, H x W the model's grid; `frame_row` [N] says which frame each object is on, so a frame is
encoded once however many objects follow it. States cross as float16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network import RecurrentState, S2Spp
from model.network.s2spp import Features

STATE_DTYPE = torch.float16


@torch.no_grad()
def state_names(network: S2Spp) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(changing, constant) state names, in the order in which the graphs take and give them."""
    frame = torch.zeros(1, 3, network.config.multiple, network.config.multiple)
    state = network.initialise(frame, frame[:, :1], network.encode(frame))
    return tuple(state.changing), tuple(state.constant)


def _image(frame: Tensor) -> Tensor:
    return frame.permute(0, 3, 1, 2).float()


def rows(features: Features, frame_row: Tensor) -> Features:
    """The features of each object's frame: [F,...] -> [N,...]."""
    return {name: feature.index_select(0, frame_row) for name, feature in features.items()}


class InitGraph(nn.Module):
    """frame uint8 [F,H,W,3], mask uint8 [N,H,W] 0/1, frame_row int64 [N] -> every state, [N,...]."""

    def __init__(self, network: S2Spp) -> None:
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, frame: Tensor, mask: Tensor, frame_row: Tensor) -> tuple[Tensor, ...]:
        image = _image(frame)
        features = rows(self.network.encode(image), frame_row)
        state = self.network.initialise(image.index_select(0, frame_row), mask[:, None].float(), features)
        return tuple(t.to(STATE_DTYPE) for t in (*state.changing.values(), *state.constant.values()))


class StepGraph(nn.Module):
    """frame uint8 [F,H,W,3], frame_row int64 [N], every state -> probability float32 [N,H/s,W/s] (s the
    output stride) and next_<state> for each state that changes."""

    def __init__(self, network: S2Spp, changing: tuple[str, ...], constant: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.changing, self.constant = changing, constant
        self.eval()

    def forward(self, frame: Tensor, frame_row: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        tensors = [state.float() for state in states]
        count = len(self.changing)
        state = RecurrentState(
            dict(zip(self.changing, tensors[:count], strict=True)),
            dict(zip(self.constant, tensors[count:], strict=True)),
        )
        output, new = self.network.recur(rows(self.network.encode(_image(frame)), frame_row), state)
        nexts = tuple(new.changing[name].to(STATE_DTYPE) for name in self.changing)
        return torch.sigmoid(output.logits)[:, 0], *nexts
