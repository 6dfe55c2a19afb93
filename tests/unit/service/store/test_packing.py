"""Packed state comes back bit for bit, is smaller, and hostile bytes are an error, not a full memory."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.store.packing import pack, unpack

_SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
_TENSORS = st.one_of(
    # float16 from raw bits: subnormals, infinities and NaNs of every payload
    arrays.arrays(np.uint16, _SHAPES).map(lambda bits: bits.view(np.float16)),
    arrays.arrays(np.float32, _SHAPES),
    arrays.arrays(np.int64, _SHAPES),
    arrays.arrays(np.bool_, _SHAPES),
)


@given(st.dictionaries(st.text(max_size=5), _TENSORS, max_size=4))
def test_what_is_unpacked_is_what_was_packed(tensors: dict[str, np.ndarray]) -> None:
    found = unpack(*pack(tensors))
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].tobytes() == tensor.tobytes()


def test_rows_and_turned_tensors_are_taken_as_they_read() -> None:
    whole = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    tensors = {"row": whole[1], "turned": whole.T}
    found = unpack(*pack(tensors))
    assert all(np.array_equal(found[name], tensor) for name, tensor in tensors.items())


def test_state_of_few_values_takes_less() -> None:
    """As int8 layers make it: 256 values of a float16's 65,536."""
    levels = (np.random.default_rng(0).integers(-128, 128, 100_000) * 0.0078).astype(np.float16)
    packed, _ = pack({"rnn1_h": levels})
    assert len(packed) < 0.7 * levels.nbytes


@pytest.mark.parametrize(
    "layout",
    [
        [["a", "<f2", [7]]],
        [["a", "<f2", [8]], ["b", "<f2", [1]]],
        [["a", "<f2", [-8]]],
        [["a", "<f2", 8]],
        [["a", "<f2", ["8"]]],
        [["a", "no type", [8]]],
        [["a", "<f2"]],
        [],
    ],
)
def test_bytes_that_are_not_the_layout_s_are_an_error(layout: list[list[object]]) -> None:
    packed, _ = pack({"a": np.zeros(8, np.float16)})
    with pytest.raises((ValueError, TypeError)):
        unpack(packed, layout)


def test_what_would_fill_the_memory_is_refused_before() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 29))
    assert len(bomb) < 1 << 17
    with pytest.raises(ValueError, match="packed"):
        unpack(np.frombuffer(bomb, np.uint8), [["a", "<f2", [1 << 28]]])
    for noise in (b"", b"\0" * 40, bomb[:20]):
        with pytest.raises(ValueError):
            unpack(np.frombuffer(noise, np.uint8), [["a", "<f2", [1 << 28]]])


def test_types_that_hold_pointers_are_refused() -> None:
    packed, _ = pack({"a": np.zeros(8, np.int64)})
    with pytest.raises((ValueError, TypeError)):
        unpack(packed, [["a", "|O", [8]]])
