import numpy as np
import torch

from model.network.attention import FrameAttention

HEIGHT, WIDTH = 6, 30


def query_and_key(loudness: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key = (loudness * torch.randn(1, 8, HEIGHT, WIDTH, generator=generator) for _ in range(2))
    return query, key


def attended(local: bool, loudness: float) -> torch.Tensor:
    """[cells of the query, cells of the key]: how much each reads of each."""
    one_hot = torch.eye(HEIGHT * WIDTH).reshape(1, -1, HEIGHT, WIDTH)
    with torch.no_grad():
        return FrameAttention(8, local)(*query_and_key(loudness), one_hot)[0].flatten(1).T


def test_no_cell_is_read_by_a_denormal_number() -> None:
    """Intel's processors multiply those a hundred times slower."""
    for local in (False, True):
        read = attended(local, loudness=8.0)
        assert read.min() > 1e3 * np.finfo(np.float32).tiny
        assert read.min() < 1e-15  # the floor is reached, and it is far below what counts
        np.testing.assert_allclose(read.sum(dim=1), 1.0, rtol=1e-5)


def test_a_cell_reads_where_its_key_is_alike() -> None:
    read = attended(False, loudness=8.0)
    query, key = query_and_key(loudness=8.0)
    similarity = query.flatten(2)[0].T @ key.flatten(2)[0] * 8**-0.5
    np.testing.assert_allclose(read, similarity.softmax(dim=-1), atol=1e-6)


def test_a_learned_penalty_keeps_a_cell_near_itself() -> None:
    near, anywhere = attended(True, loudness=1.0), attended(False, loudness=1.0)
    assert torch.diagonal(near).mean() > 3 * torch.diagonal(anywhere).mean()
