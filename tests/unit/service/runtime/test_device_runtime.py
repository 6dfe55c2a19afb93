"""States that stay on a device: what is where, and for how long. The provider is the CPU's, all else as on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.errors import Overloaded
from service.core.ports import StepResult
from service.core.state import State, Tensors
from service.core.types import ImageU8
from service.runtime import BundleError, DeviceRuntime, OnnxRuntime, load_bundle
from service.runtime.pool import Copier, DeviceRows, Pool
from tests.integration.tiny_bundle import write_tiny_bundle

SIZE = (32, 48)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def device(bundle: Path) -> DeviceRuntime:
    return DeviceRuntime(load_bundle(str(bundle)), max_batch=4, provider="cpu")


@pytest.fixture
def host(bundle: Path) -> OnnxRuntime:
    return OnnxRuntime(load_bundle(str(bundle)))


def frame(seed: int, size: tuple[int, int] = SIZE) -> ImageU8:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def masks(seed: int, objects: int = 1, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 2, (objects, *size), np.uint8)


def copied(state: State) -> Tensors:
    return {name: tensor.copy() for part in (state.changing, state.constant) for name, tensor in part.tensors().items()}


def assert_same(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def pools_of(state: State) -> tuple[Pool, Pool]:
    assert isinstance(state.changing, DeviceRows) and isinstance(state.constant, DeviceRows)
    return state.changing.pool, state.constant.pool


def stepped(runtime: DeviceRuntime | OnnxRuntime, states: Sequence[State], *seeds: int) -> list[StepResult]:
    return runtime.step([frame(seed) for seed in seeds], states)


def test_every_step_is_that_of_the_cpu_to_the_bit(device: DeviceRuntime, host: OnnxRuntime) -> None:
    frames, first = [frame(seed) for seed in range(3)], [masks(seed, objects) for seed, objects in enumerate((1, 3, 2))]
    there, here = device.initialise(frames, first), host.initialise(frames, first)
    for step in range(10, 40, 10):
        results, expected = (
            stepped(runtime, states, step, step + 1, step + 2) for runtime, states in ((device, there), (host, here))
        )
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result.probability, wanted.probability)
            assert_same(copied(result.state), copied(wanted.state))
        there, here = [result.state for result in results], [result.state for result in expected]
        there.reverse(), here.reverse()  # type: ignore[func-returns-value]


def test_no_state_leaves_the_device_on_the_way(device: DeviceRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it can be seen here: nothing asks for it, and nothing is put there."""
    states = device.initialise([frame(0), frame(1)], [masks(0), masks(1, 2)])
    restored = states[0].on_host()
    states = [result.state for result in stepped(device, [restored, states[1]], 2, 3)]  # which puts it there
    put = Copier.put

    def put_rows(copier: Copier, tensor: NDArray[np.generic]) -> object:
        assert tensor.dtype == np.int64, "a state was written"
        return put(copier, tensor)

    monkeypatch.setattr(DeviceRows, "tensors", lambda _: pytest.fail("a state was read"))
    monkeypatch.setattr(Copier, "put", put_rows)
    for step in range(4):
        states = [result.state for result in stepped(device, states, step, step + 1)]
    joined = states[0].join(states[1:]).take([2, 0])
    stepped(device, [joined], 9)


def test_a_state_that_was_kept_is_what_it_was(device: DeviceRuntime) -> None:
    """As a snapshot does that is being stored, while the session goes on."""
    (state,) = device.initialise([frame(0)], [masks(0, 2)])
    kept, was = state, copied(state)
    for step in range(50):
        (result,) = stepped(device, [state], step)
        state = result.state
    assert_same(copied(kept), was)


def test_what_nobody_has_any_more_is_free_again(device: DeviceRuntime) -> None:
    (state,) = device.initialise([frame(0)], [masks(0, 2)])
    changing, constant = pools_of(state)
    for step in range(50):
        (result,) = stepped(device, [state], step)
        state = result.state
    del result
    assert changing.capacity - changing.free == constant.capacity - constant.free == 2
    kept = state.take([1])
    del state
    assert changing.capacity - changing.free == 1
    del kept
    assert changing.capacity == changing.free


def test_idle_sessions_hold_no_rows(device: DeviceRuntime) -> None:
    """Parked ones are in the store, on the host: a thousand of them leave the pool as it was."""
    (active,) = device.initialise([frame(0)], [masks(0)])
    changing, _ = pools_of(active)
    parked = []
    for seed in range(100):
        (state,) = device.initialise([frame(seed)], [masks(seed)])
        parked.append(state.on_host())
    del state
    assert changing.capacity - changing.free == 1


def test_more_objects_than_rows_make_it_grow_and_lose_nothing(device: DeviceRuntime) -> None:
    states = [device.initialise([frame(seed)], [masks(seed, 3)])[0] for seed in range(4)]
    changing, _ = pools_of(states[0])
    capacity, was = changing.capacity, [copied(state) for state in states]
    states += [device.initialise([frame(seed)], [masks(seed, 7)])[0] for seed in range(9)]
    assert changing.capacity > capacity and pools_of(states[-1])[0] is changing
    for state, before in zip(states, was, strict=False):
        assert_same(copied(state), before)
    assert changing.capacity - changing.free == 12 + 63


def test_a_restored_state_is_taken_beside_others(device: DeviceRuntime, host: OnnxRuntime) -> None:
    there = device.initialise([frame(0), frame(1)], [masks(0), masks(1, 2)])
    expected = stepped(host, host.initialise([frame(0), frame(1)], [masks(0), masks(1, 2)]), 5, 6)
    restored = there[1].on_host()
    for result, wanted in zip(stepped(device, [there[0], restored], 5, 6), expected, strict=True):
        np.testing.assert_array_equal(result.probability, wanted.probability)
        assert isinstance(result.state.changing, DeviceRows)


def test_objects_on_the_host_and_on_the_device_join(device: DeviceRuntime) -> None:
    one, other = device.initialise([frame(0), frame(1)], [masks(0), masks(1)])
    restored = one.on_host()
    assert_same(copied(restored.join([other])), copied(one.join([other])))
    assert_same(copied(other.join([restored])), copied(other.join([one])))


def test_every_size_has_pools_of_its_own_as_long_as_it_is_used(device: DeviceRuntime) -> None:
    (state,) = device.initialise([frame(0)], [masks(0)])
    (tall,) = device.initialise([frame(0, (64, 16))], [masks(0, 1, (64, 16))])
    assert not set(map(id, pools_of(state))) & set(map(id, pools_of(tall)))
    assert len(device._pools) == 4
    del tall
    assert len(device._pools) == 2


def test_the_pool_of_the_usual_size_stays(device: DeviceRuntime) -> None:
    device.warm_up()
    assert [pool.capacity for pool in device._pools.values()] == [256, 256]
    assert [pool.free for pool in device._pools.values()] == [255, 255]


def test_states_are_read_while_others_are_made(device: DeviceRuntime) -> None:
    """By the thread that stores them."""
    (state,) = device.initialise([frame(0)], [masks(0, 2)])
    was, wrong, over = copied(state), [], threading.Event()

    def read() -> None:
        while not over.is_set():
            for name, tensor in copied(state).items():
                if not np.array_equal(tensor, was[name]):
                    wrong.append(name)

    thread = threading.Thread(target=read)
    thread.start()
    others = [state]
    for step in range(100):  # growth among it
        others.append(stepped(device, others[-1:], step)[0].state)
    over.set()
    thread.join()
    assert not wrong


def test_a_device_without_memory_is_said(device: DeviceRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    states = device.initialise([frame(0)], [masks(0)])
    monkeypatch.setattr(Copier, "empty", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    restored = states[0].on_host()
    with pytest.raises(Overloaded, match="memory of the device"):
        while True:
            states += device.initialise([frame(0)], [masks(0)])
    with pytest.raises(Overloaded, match="memory of the device"):
        while True:
            states.append(stepped(device, [restored], 1)[0].state)
    for at in range(0, len(states), 4):  # those that are there go on, as many together as may be
        batch = states[at : at + 4]
        states[at : at + 4] = [result.state for result in stepped(device, batch, *range(len(batch)))]


def test_a_network_need_not_have_constant_states(tmp_path: Path) -> None:
    device, host = (
        kind(load_bundle(str(write_tiny_bundle(tmp_path / str(number), constant=False))), **more)
        for number, (kind, more) in enumerate(
            ((DeviceRuntime, {"max_batch": 4, "provider": "cpu"}), (OnnxRuntime, {"threads": 1}))
        )
    )
    there, here = (runtime.initialise([frame(0)], [masks(0, 2)]) for runtime in (device, host))
    for seed in (1, 2):
        (result,), (wanted,) = stepped(device, [state.take([0, 1]) for state in there], seed), stepped(host, here, seed)
        np.testing.assert_array_equal(result.probability, wanted.probability)
        there, here = [result.state], [wanted.state]


def test_states_of_another_type_are_refused() -> None:
    with pytest.raises(BundleError, match=r"states on a GPU are float16, rnn1_h, .* are not"):
        DeviceRuntime(load_bundle("s2spp-light-int8"), max_batch=4, provider="cpu")


def test_an_8_bit_bundle_is_not_served_on_a_gpu() -> None:
    """It has no kernels for 8-bit products: half of a step would go to the CPU and back, of which nobody would know."""
    with pytest.raises(BundleError, match="made for CPUs, in 8 bits: serve the float bundle on cuda"):
        DeviceRuntime(load_bundle("s2spp-light-int8"), max_batch=1)
