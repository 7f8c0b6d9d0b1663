"""Modules: tracing any DAG, what a change of structure does, copies, threads and processes."""

import copy
import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest

import pycnn
from helpers import normal
from pycnn import functional as F
from pycnn import losses, nn, optim


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)) + x)


class Twice(nn.Module):
    """One layer in two places: its gradients add."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(F.tanh(self.layer(x)))


class TwoInTwoOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 3, 1)

    def forward(self, left, right):
        joined = F.concat([self.a(left), right * 2.0], dim=1)
        return joined[:, 1:4], joined.flatten(1)


def directional_derivative(model, inputs, gradients, directions, eps=1e-6):
    """d/dt of sum(outputs * gradients) along `directions` of the inputs, by central differences."""

    def value(sign):
        moved = tuple(x + sign * eps * d for x, d in zip(inputs, directions, strict=True))
        results = model(*moved)
        results = results if isinstance(results, tuple) else (results,)
        return sum((r * g).sum() for r, g in zip(results, gradients, strict=True))

    return (value(1) - value(-1)) / (2 * eps)


def test_residual_block_has_the_right_gradient():
    model = Block(5).double()
    x, dy, direction = (normal((2, 5, 6, 7), np.float64, seed) for seed in range(3))
    model(x)
    dx = model.backward(dy)
    slope = directional_derivative(model, (x,), (dy,), (direction,))
    assert abs((dx * direction).sum() - slope) < 1e-6 * abs(slope) + 1e-7


def test_forward_is_the_same_as_a_call():
    model, x = Block(3), normal((2, 3, 4, 4))
    y = model(x)
    state = model.state_dict()
    model.load_state_dict(state)
    np.testing.assert_array_equal(model.forward(x), y)
    assert model.backward(y).shape == x.shape


def test_gradients_of_a_layer_in_two_places_add():
    model = Twice().double()
    x, dy = normal((3, 4), np.float64), normal((3, 4), np.float64, 1)
    model(x)
    model.backward(dy)
    grad = model.layer.weight.grad.copy()
    weight, eps = model.layer.weight.data, 1e-6
    for index in [(0, 0), (1, 2), (3, 3)]:
        weight[index] += eps
        above = (model(x) * dy).sum()
        weight[index] -= 2 * eps
        below = (model(x) * dy).sum()
        weight[index] += eps
        assert abs(grad[index] - (above - below) / (2 * eps)) < 1e-7


def test_several_inputs_and_outputs():
    model = TwoInTwoOut().double()
    inputs = normal((2, 2, 3, 4), np.float64), normal((2, 2, 3, 4), np.float64, 1)
    first, second = model(*inputs)
    assert first.shape == (2, 3, 3, 4)
    assert second.shape == (2, 60)
    gradients = normal(first.shape, np.float64, 2), normal(second.shape, np.float64, 3)
    directions = tuple(normal((2, 2, 3, 4), np.float64, s) for s in (4, 5))
    model(*inputs)
    dleft, dright = model.backward(*gradients)
    slope = directional_derivative(model, inputs, gradients, directions)
    model(*inputs)
    assert abs((dleft * directions[0]).sum() + (dright * directions[1]).sum() - slope) < 1e-7
    model(*inputs)
    only_first = model.backward(gradients[0], None)
    model(*inputs)
    zero = np.zeros_like(gradients[1])
    for got, want in zip(only_first, model.backward(gradients[0], zero), strict=True):
        np.testing.assert_array_equal(got, want)


def test_identity_and_repeated_outputs():
    class Both(nn.Module):
        def forward(self, x):
            y = F.relu(x)
            return x, y, y

    model, x = Both(), normal((2, 3))
    a, b, c = model(x)
    np.testing.assert_array_equal(a, x)
    np.testing.assert_array_equal(b, c)
    assert not np.shares_memory(a, x)
    ones = np.ones_like(x)
    np.testing.assert_array_equal(model.backward(ones, ones, ones), 1 + 2 * (x > 0))


def test_backward_may_be_called_again_and_accumulates():
    layer, x = nn.Conv2d(2, 3, 3), normal((1, 2, 5, 5))
    y = layer(x)
    dx = layer.backward(y)
    grad = layer.weight.grad.copy()
    np.testing.assert_array_equal(layer.backward(y), dx)
    np.testing.assert_allclose(layer.weight.grad, 2 * grad, rtol=1e-6)
    layer.zero_grad()
    assert not layer.weight.grad.any()


def test_input_may_change_after_forward_in_training():
    layer, x = nn.Conv2d(2, 3, 3), np.ascontiguousarray(normal((1, 5, 5, 2))).transpose(0, 3, 1, 2)
    y = layer(x)
    dx = layer.backward(y)
    grad = layer.weight.grad.copy()
    layer.zero_grad()
    layer(x)
    x[...] = np.nan
    np.testing.assert_array_equal(layer.backward(y), dx)
    np.testing.assert_array_equal(layer.weight.grad, grad)


def test_results_are_the_callers():
    """No result shares memory with another, with the input or with the engine."""
    layer, x = nn.ReLU(), normal((2, 3, 4, 4))
    first, second = layer(x), layer(x)
    assert not np.shares_memory(first, second)
    first[...] = -1
    dx = layer.backward(np.ones_like(second))
    np.testing.assert_array_equal(dx, x > 0)


def test_failed_forward_leaves_no_last_forward():
    layer, x = nn.Conv2d(2, 3, 3), normal((1, 2, 5, 5))
    y = layer(x)
    with pytest.raises(ValueError):
        layer(normal((1, 3, 5, 5)))
    with pytest.raises(RuntimeError, match="forward"):
        layer.backward(y)


def test_changes_are_noticed():
    model, x = Block(3), normal((2, 3, 4, 4))
    trained = model(x)
    model.eval()
    assert not np.array_equal(model(x), trained)
    model.train()
    np.testing.assert_array_equal(model(x), trained)
    model.bn.eval()
    assert not np.array_equal(model(x), trained)
    model.train()
    model.conv = nn.Conv2d(3, 3, 1, bias=False)
    model.conv.weight.data = np.zeros((3, 3, 1, 1))
    np.testing.assert_allclose(model(x), np.maximum(x, 0), atol=1e-6)
    layer = nn.LeakyReLU(0.5)
    np.testing.assert_array_equal(layer(-np.ones((1, 2), np.float32)), np.full((1, 2), -0.5))
    layer.negative_slope = 0.25
    np.testing.assert_array_equal(layer(-np.ones((1, 2), np.float32)), np.full((1, 2), -0.25))


def test_frozen_parameters_get_no_gradient():
    model, x = Block(3), normal((2, 3, 4, 4))
    model.conv.requires_grad_(False)
    model.backward(model(x))
    assert not model.conv.weight.grad.any()
    assert model.bn.weight.grad.any()
    model.conv.requires_grad_(True)
    model.backward(model(x))
    assert model.conv.weight.grad.any()


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_detached(twin_of):
    model, x = Block(3), normal((2, 3, 4, 4))
    model(x)
    twin = twin_of(model)
    model.eval(), twin.eval()
    want = model(x)
    np.testing.assert_array_equal(twin(x), want)
    twin.conv.weight.data[...] += 1
    twin.bn.running_mean[...] += 1
    np.testing.assert_array_equal(model(x), want)
    assert not np.array_equal(twin(x), want)


def test_views_stay_valid():
    """`data` and `grad` are views of memory that stays; assigning copies into it."""
    layer = nn.Linear(3, 2)
    data, grad = layer.weight.data, layer.weight.grad
    layer.weight.data = np.ones((2, 3))
    layer.weight.grad = np.full((2, 3), 2.0)
    np.testing.assert_array_equal(data, np.ones((2, 3)))
    np.testing.assert_array_equal(grad, np.full((2, 3), 2))
    layer(normal((4, 3)))
    data[...] = 0
    np.testing.assert_array_equal(layer(np.ones((1, 3), np.float32))[0], layer.bias.data)
    assert layer.weight.data is data


def test_double_and_back():
    model, x = Block(3), normal((2, 3, 5, 5))
    single = model(x)
    model.double()
    assert model.conv.weight.data.dtype == np.float64
    np.testing.assert_allclose(model(x.astype(np.float64)), single, atol=1e-5)
    model.float()
    np.testing.assert_allclose(model(x), single, atol=1e-6)


def train_a_little():
    """Losses and final weights of ten steps of a small network, as bytes."""
    pycnn.manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), Block(8),
        nn.Dropout(0.3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    loss, optimizer = losses.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = normal((16, 1, 20, 20)), np.arange(16) % 5
    values = []
    for _ in range(10):
        values.append(loss(model(x), y))
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    assert values[-1] < values[0]
    return b"".join([np.array(values).tobytes(), *(v.tobytes() for v in model.state_dict().values())])


def test_same_bits_at_any_number_of_threads():
    before = pycnn.get_num_threads()
    try:
        results = set()
        for threads in (1, 2, 3, 4):
            pycnn.set_num_threads(threads)
            results.add(train_a_little())
    finally:
        pycnn.set_num_threads(before)
    assert len(results) == 1


def test_threads_share_a_module():
    """Python threads may call one module at the same time: runs take turns."""
    model, x = Block(4).eval(), normal((8, 4, 16, 16))
    want = model(x)
    wrong = []

    def work():
        for _ in range(20):
            if not np.array_equal(model(x), want):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def _train_in_child(queue):
    queue.put(train_a_little())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork() on this system")
def test_training_goes_on_after_fork():
    want = train_a_little()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_train_in_child, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=60) == want
    finally:
        child.join(10)
        child.kill()
    assert child.exitcode == 0


def test_state_dict_has_pytorchs_names():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
    assert list(model.state_dict()) == [
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked",
    ]  # fmt: skip
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert model.num_parameters == 2 * 9 + 2 + 4


def test_setting_attributes_needs_init():
    class Forgot(nn.Module):
        def __init__(self):
            self.layer = nn.ReLU()

    with pytest.raises(AttributeError, match="super"):
        Forgot()


def test_broadcast_parameters_and_arrays():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(np.full((3, 1, 1), 2.0))
            self.offset = np.arange(4, dtype=np.float32)

        def forward(self, x):
            return x * self.gamma + self.offset

    model, x = Scale(), normal((2, 3, 5, 4))
    np.testing.assert_allclose(model(x), 2 * x + np.arange(4), rtol=1e-6)
    dy = normal(x.shape, seed=1)
    np.testing.assert_allclose(model.backward(dy), 2 * dy, rtol=1e-6)
    want = (dy * x).sum((0, 2, 3)).reshape(3, 1, 1)
    np.testing.assert_allclose(model.gamma.grad, want, rtol=1e-4)


def test_parameters_are_float32_unless_told():
    assert nn.Parameter(np.zeros(3)).dtype == np.float32
    assert nn.Parameter([1, 2], dtype=np.float64).dtype == np.float64
    assert copy.deepcopy(nn.Linear(2, 2).double()).weight.dtype == np.float64
    with pytest.raises(TypeError, match=r"dtype.*float16"):
        nn.Parameter(np.zeros(3), dtype=np.float16)
