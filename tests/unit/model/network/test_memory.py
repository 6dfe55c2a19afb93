"""The ConvLSTM, where its gates see less of its last output than it has channels."""

import torch

from model.network.memory import ConvLSTM


def test_gates_that_see_all_channels_through_the_1x1_are_the_gates_that_see_h_itself() -> None:
    torch.manual_seed(0)
    plain = ConvLSTM(5, [3], 4, 3, "tanh")
    narrowed = ConvLSTM(5, [3], 4, 3, "tanh", hidden=4)
    narrowed.load_state_dict(plain.state_dict(), strict=False)
    assert narrowed.narrow is not None and plain.narrow is None
    with torch.no_grad():
        narrowed.narrow.weight.copy_(torch.eye(4)[:, :, None, None])
    frame, own, h, c = (torch.randn(2, channels, 6, 7) for channels in (5, 3, 4, 4))
    for one, other in zip(
        plain(plain.of_frame(frame), [own], h, c), narrowed(narrowed.of_frame(frame), [own], h, c), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_the_gates_see_of_h_what_the_1x1_leaves_and_the_output_keeps_its_channels() -> None:
    memory = ConvLSTM(5, [3], 4, 3, "tanh", hidden=2)
    assert memory.narrow is not None
    frame, own, h, c = (torch.randn(2, channels, 6, 7) for channels in (5, 3, 4, 4))
    hidden = torch.linalg.svd(memory.narrow.weight[:, :, 0, 0]).Vh[3]  # what the 1x1 maps to nothing
    with torch.no_grad():
        as_it_is = memory(memory.of_frame(frame), [own], h, c)
        changed = memory(memory.of_frame(frame), [own], h + hidden[:, None, None], c)
        seen = memory(memory.of_frame(frame), [own], h + memory.narrow.weight[0], c)
    assert as_it_is[0].shape == as_it_is[1].shape == (2, 4, 6, 7)
    torch.testing.assert_close(changed, as_it_is)
    assert not torch.allclose(seen[0], as_it_is[0], atol=1e-3)
