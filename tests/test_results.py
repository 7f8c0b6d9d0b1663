"""Results reuse memory that nobody holds any more, and never memory that somebody does."""

import gc
import threading

import numpy as np
import pytest

from helpers import normal
from pycnn import functional as F
from pycnn import nn

LARGE = (1, 16, 64, 64)  # 256 KiB
SMALL = (1, 4, 8, 8)


def address(array):
    return array.__array_interface__["data"][0]


def inputs(count, shape=LARGE):
    return [normal(shape, seed=i) for i in range(count)]


def relu(x):
    return np.maximum(x, 0)


class Interface:
    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


HOLD = {
    "the array": lambda y: y,
    "a view": lambda y: y[:, 3, ::2],
    "a view of a view": lambda y: y[0].T[5:][:, 1],
    "a reshaped view": lambda y: y.transpose(0, 2, 3, 1).reshape(-1),
    "a memoryview": lambda y: memoryview(y.transpose(0, 2, 3, 1)),
    "an array over its buffer": lambda y: np.frombuffer(y.transpose(0, 2, 3, 1), np.float32),
    "an array over its interface": lambda y: np.asarray(Interface(y)),
    "its base": lambda y: y.base,
}


@pytest.mark.parametrize("hold", HOLD.values(), ids=HOLD)
def test_what_is_held_stays(hold):
    layer = nn.ReLU()
    held, wanted = [], []
    for x in inputs(5):
        held.append(hold(layer(x)))
        wanted.append(np.array(held[-1]))
    for got, want in zip(held, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(got), want)


@pytest.mark.parametrize("hold", HOLD.values(), ids=HOLD)
def test_held_gradients_stay(hold):
    layer = nn.LeakyReLU(0.5)
    layer(normal(LARGE))
    held, wanted = [], []
    for dy in inputs(5):
        held.append(hold(layer.backward(dy)))
        wanted.append(np.array(held[-1]))
    for got, want in zip(held, wanted, strict=True):
        np.testing.assert_array_equal(np.asarray(got), want)


def test_dropped_memory_comes_back():
    layer = nn.ReLU()
    x = normal(LARGE)
    seen = {address(layer(x)) for _ in range(6)}
    assert len(seen) == 1
    y = layer(x)
    seen = set()
    for _ in range(6):
        y = layer(x)  # the old one goes when the new one is there
        seen.add(address(y))
    assert len(seen) == 2


def test_dropped_gradients_come_back():
    layer = nn.ReLU()
    dy = normal(LARGE)
    layer(dy)
    assert len({address(layer.backward(dy)) for _ in range(6)}) == 1


def test_memory_comes_back_with_the_last_view():
    layer = nn.ReLU()
    x = normal(LARGE)
    y = layer(x)
    first = address(y)
    rows, window = y[0, 0], memoryview(y.transpose(0, 2, 3, 1))
    del y
    assert address(layer(x)) != first
    del rows
    assert address(layer(x)) != first
    window.release()
    del window
    gc.collect()
    assert first in {address(y) for y in [layer(x), layer(x)]}


def test_results_are_ordinary_arrays():
    y = nn.ReLU()(normal(LARGE))
    assert type(y) is np.ndarray and y.shape == LARGE and y.dtype == np.float32
    assert y.flags.writeable and y.transpose(0, 2, 3, 1).flags.c_contiguous
    y += 1
    np.testing.assert_array_equal(np.array(y).clip(1), y)


def test_results_lie_on_cache_lines():
    for shape in (LARGE, (70_001,), (333, 777)):
        assert address(nn.ReLU()(normal(shape))) % 64 == 0


def test_a_result_as_the_next_input():
    layer = nn.Hardswish()
    x = normal(LARGE)
    y, want = x, x.astype(np.float64)
    for _ in range(5):
        y = layer(y)
        want = want * np.clip(want + 3, 0, 6) / 6
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


class Two(nn.Module):
    def forward(self, x):
        return F.relu(x), F.relu(-x)


def test_two_outputs():
    net = Two()
    held = []
    for i, x in enumerate(inputs(6)):
        plus, minus = net(x)
        assert not np.shares_memory(plus, minus)
        held.append((plus, relu(x)) if i % 2 else (minus, relu(-x)))
    for got, want in held:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [LARGE, SMALL])
def test_threads(shape):
    """Threads that share a layer: what each got stays what it was, whatever the others do meanwhile."""
    layer = nn.ReLU().eval()
    layer(normal(shape))
    wrong = []

    def work(seed):
        held = []
        for x in (normal(shape, seed=100 * seed + i) for i in range(20)):
            held.append((layer(x), relu(x)))
            held = held[-3:]
            wrong.extend(1 for got, want in held if not np.array_equal(got, want))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_outlive_their_layer():
    layer = nn.ReLU()
    x = normal(LARGE)
    y = layer(x)
    del layer
    gc.collect()
    np.testing.assert_array_equal(y, relu(x))
