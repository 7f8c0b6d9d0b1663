"""Flatten, and the operators of a traced forward: add, multiply, concatenate, slice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    DTYPES,
    as_double,
    assert_close,
    check_gradients,
    check_layer,
    in_dtype,
    layouts,
    normal,
    raises,
    randomize,
)
from pycnn import functional as F
from pycnn import nn
from reference import conv, shape_ops

TOLERANCE = 1e-6


@given(
    shape=st.builds(
        lambda n, rest: (n, *rest), st.integers(0, 4), st.lists(st.integers(1, 9), min_size=1, max_size=3)
    ),
    layout=layouts,
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_flatten_matches_the_oracle(shape, layout, dtype, data):
    """Row-major in the logical shape (n, c, h, w), whatever the memory."""
    start = data.draw(st.integers(0, len(shape) - 1), "start_dim")
    end = data.draw(st.integers(start, len(shape) - 1), "end_dim")
    check_layer(
        in_dtype(nn.Flatten(start, end), dtype),
        normal(shape, dtype),
        lambda x: shape_ops.flatten_forward(x, start, end),
        shape_ops.flatten_backward,
        TOLERANCE,
        layout=layout,
    )


def test_flatten_keeps_the_batch_unless_told():
    assert nn.Flatten()(normal((2, 3, 4, 5))).shape == (2, 60)


def test_identity():
    x = normal((2, 3, 4, 5))
    layer = nn.Identity()
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)


class Forward(nn.Module):
    """A Module whose forward is a given function: a network of operators alone."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# forward in terms of a symbolic or NumPy x, and its gradient by the oracle
OPERATORS = {
    "x + x": (lambda x: x + x, lambda dy, x: 2 * dy),
    "x * x": (lambda x: x * x, lambda dy, x: 2 * x * dy),
    "x + x * x": (lambda x: x + x * x, lambda dy, x: dy + 2 * x * dy),
    "broadcast over rows": (
        lambda x: x * x[:, :, :1, :],
        lambda dy, x: dy * x[:, :, :1] + _add_to(x, np.s_[:, :, :1], (dy * x).sum(2, keepdims=True)),
    ),
    "broadcast over channels": (
        lambda x: x + x[:, 1:2],
        lambda dy, x: dy + _add_to(x, np.s_[:, 1:2], dy.sum(1, keepdims=True)),
    ),
    "broadcast over the batch": (
        lambda x: x * x[:1],
        lambda dy, x: dy * x[:1] + _add_to(x, np.s_[:1], (dy * x).sum(0, keepdims=True)),
    ),
    "x[:, 1:3]": (lambda x: x[:, 1:3], lambda dy, x: _add_to(x, np.s_[:, 1:3], dy)),
    "x[..., ::2]": (lambda x: x[..., ::2], lambda dy, x: _add_to(x, np.s_[..., ::2], dy)),
    "x[:, :, -2:, 1:-1]": (
        lambda x: x[:, :, -2:, 1:-1],
        lambda dy, x: _add_to(x, np.s_[:, :, -2:, 1:-1], dy),
    ),
}


def _add_to(x, index, gradient):
    return shape_ops.slice_backward(gradient, x, index)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 4, 3, 5), (1, 19, 3, 4)])
def test_operators_match_numpy(name, dtype, shape):
    forward, backward = OPERATORS[name]
    check_layer(in_dtype(Forward(forward), dtype), normal(shape, dtype), forward, backward, 5e-6)


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5)),
    dim=st.integers(-4, 3),
    copies=st.integers(2, 4),
    layout=layouts,
    dtype=st.sampled_from(DTYPES),
)
def test_concat_matches_the_oracle(shape, dim, copies, layout, dtype):
    """The same tensor in several places: its gradients add."""
    check_layer(
        in_dtype(Forward(lambda x: F.concat([x] * copies, dim=dim)), dtype),
        normal(shape, dtype),
        lambda x: shape_ops.concat_forward([x] * copies, dim),
        lambda dy, x: sum(shape_ops.concat_backward(dy, [x] * copies, dim)),
        TOLERANCE,
        layout=layout,
    )


class Branches(nn.Module):
    """A DAG with everything in it: a layer used twice, a residual, a gate, a concatenation, a slice."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.gate = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        once = F.relu(self.norm(self.conv(x)) + x)
        twice = self.conv(once)
        joined = F.concat([once, twice * self.gate(x)], dim=1)
        return joined[:, 1:5] + x[:, :1]


def test_dag_gradients_by_central_differences():
    check_gradients(randomize(Branches()), normal((2, 3, 4, 5)), rtol=1e-4)


def test_a_layer_used_twice_adds_its_gradients():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1, bias=False)

        def forward(self, x):
            return self.conv(self.conv(x))

    module = randomize(Twice())
    x, dy = normal((2, 2, 3, 3)), normal((2, 2, 3, 3), seed=1)
    module(x)
    dx = module.backward(dy)
    weight = as_double(module.conv.weight.data)
    middle = conv.conv2d_forward(as_double(x), weight)
    dmiddle, second, _ = conv.conv2d_backward(as_double(dy), middle, weight)
    want, first, _ = conv.conv2d_backward(dmiddle, as_double(x), weight)
    assert_close(dx, want, 1e-5)
    assert_close(module.conv.weight.grad, first + second, 1e-5)


def test_shape_is_concrete_in_forward():
    seen = []

    class Shapes(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            y = self.pool(x)
            seen.append((x.shape, y.shape))
            return y

    Shapes()(normal((2, 3, 4, 6)))
    assert seen[0] == ((2, 3, 4, 6), (2, 3, 2, 3))


NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", NUMPY_MODES)
@pytest.mark.parametrize("sides", [(1, 2), (0, 3), (2, 0, 1, 3), (1, 1, 0, 0, 2, 1), (0, 0, 0, 0)])
def test_pad(dtype, mode, sides):
    x = normal((2, 4, 5, 6), dtype)
    pairs = [(0, 0)] * (4 - len(sides) // 2) + [sides[i : i + 2] for i in range(len(sides) - 2, -1, -2)]
    more = {"constant_values": -1.5} if mode == "constant" else {}
    want = np.pad(x, pairs, NUMPY_MODES[mode], **more)
    np.testing.assert_array_equal(F.pad(x, sides, mode, -1.5), want)


def test_pad_that_takes_away():
    x = normal((2, 3, 5, 6))
    np.testing.assert_array_equal(F.pad(x, (-1, 1, -2, -1)), np.pad(x[:, :, 2:-1, 1:], ((0, 0),) * 3 + ((0, 1),)))


@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_gradient_of_pad(mode):
    class Padded(nn.Module):
        def forward(self, x):
            return F.pad(x, (1, 2, 2, -1), mode)

    check_gradients(Padded(), normal((2, 3, 4, 5), np.float64))


def test_pad_refuses():
    x = normal((1, 2, 3, 3))
    with raises(ValueError, "pad", "3"):
        F.pad(x, (1, 2, 3))
    with raises(ValueError, "pad", "10"):
        F.pad(x, (1,) * 10)
    with raises(ValueError, "mode", "mirror"):
        F.pad(x, (1, 1), "mirror")
    with raises(ValueError, "pad", "reflect", "2"):
        F.pad(x, (3, 0), "reflect")
    with raises(TypeError, "pad", "float"):
        F.pad(x, (0.5, 1))
    with raises(TypeError, "value", "str"):
        F.pad(x, (1, 1), value="0")
