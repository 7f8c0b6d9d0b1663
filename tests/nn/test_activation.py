"""Activations against the oracle: values, slopes, both tails, NaN, any rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import DTYPES, as_double, check_gradients, in_dtype, layouts, normal
from pycnn import nn
from reference import activations

# float32: a few units in the last place, and where a difference cancels as much of the numbers it is made of.
RTOL, ATOL = 5e-6, 5e-6

# module, name in the oracle, the oracle's arguments beyond x
ELEMENTWISE = [
    (nn.Sigmoid, "sigmoid", {}),
    (nn.Tanh, "tanh", {}),
    (nn.ReLU, "relu", {}),
    (nn.ReLU6, "relu6", {}),
    (nn.LeakyReLU, "leaky_relu", {}),
    (lambda: nn.LeakyReLU(0.3), "leaky_relu", {"negative_slope": 0.3}),
    (nn.Softplus, "softplus", {}),
    (lambda: nn.Softplus(beta=2.5, threshold=4), "softplus", {"beta": 2.5, "threshold": 4}),
    (nn.Mish, "mish", {}),
    (nn.SiLU, "silu", {}),
    (nn.GELU, "gelu", {}),
    (lambda: nn.GELU(approximate="tanh"), "gelu", {"approximate": "tanh"}),
    (nn.ELU, "elu", {}),
    (lambda: nn.ELU(alpha=1.7), "elu", {"alpha": 1.7}),
    (nn.SELU, "selu", {}),
    (nn.Hardswish, "hardswish", {}),
    (nn.Hardsigmoid, "hardsigmoid", {}),
]
elementwise = pytest.mark.parametrize(
    ("make", "name", "options"),
    ELEMENTWISE,
    ids=[f"{name} {options or ''}" for _, name, options in ELEMENTWISE],
)
shapes = st.builds(lambda n, rest: (n, *rest), st.integers(0, 9), st.lists(st.integers(1, 9), max_size=4))


def oracle(name, x, dy, options):
    x, dy = as_double(x), as_double(dy)
    forward, backward = getattr(activations, f"{name}_forward"), getattr(activations, f"{name}_backward")
    return forward(x, **options), backward(dy, x, **options)


def check(layer, name, options, x, layout=np.ascontiguousarray):
    dy = normal(x.shape, x.dtype, seed=9)
    y, dx = layer(layout(x)), layer.backward(layout(dy))
    want_y, want_dx = oracle(name, x, dy, options)
    rtol, atol = (RTOL, ATOL) if x.dtype == np.float32 else (1e-12, 1e-13)
    assert y.dtype == dx.dtype == x.dtype
    np.testing.assert_allclose(y, want_y, rtol, atol)
    np.testing.assert_allclose(dx, want_dx, rtol, atol)


@elementwise
@given(shape=shapes, layout=layouts, dtype=st.sampled_from(DTYPES))
def test_matches_the_oracle(make, name, options, shape, layout, dtype):
    check(in_dtype(make(), dtype), name, options, 4 * normal(shape, dtype), layout)


@elementwise
@pytest.mark.parametrize("dtype", DTYPES)
def test_over_the_whole_range(make, name, options, dtype):
    """Small, large and in between, of either sign, and on no kink: the tails do not overflow."""
    magnitudes = np.concatenate([np.logspace(-20, 3, 400), np.linspace(0.01, 30, 400)])
    x = np.concatenate([-magnitudes[::-1], [-0.0, 0.0], magnitudes]).astype(dtype)
    check(in_dtype(make(), dtype), name, options, x)


@elementwise
def test_at_kinks(make, name, options):
    """At 0, 3 and 6, where clamps begin and end, the slope is PyTorch's choice."""
    x = np.array([-6, -3, -0.0, 0.0, 3, 6] * 7, np.float32)  # more than a vector, with a tail
    check(make(), name, options, x)


@elementwise
@pytest.mark.parametrize("length", [1, 7, 8, 9, 67])
def test_nan_propagates(make, name, options, length):
    """In the vector part and in the tail alike. max(x, 0) of the hardware would swallow it."""
    layer = make()
    for position in (0, length // 2, length - 1):
        x = normal(length)
        x[position] = np.nan
        y = layer(x)
        assert np.isnan(y[position])
        assert np.isfinite(np.delete(y, position)).all()


@elementwise
def test_gradients_by_central_differences(make, name, options):
    check_gradients(make(), 3 * normal((2, 3, 4)))


@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple),
    per_channel=st.booleans(),
    layout=layouts,
    dtype=st.sampled_from(DTYPES),
)
def test_prelu_matches_the_oracle(shape, per_channel, layout, dtype):
    layer = in_dtype(nn.PReLU(shape[1] if per_channel else 1), dtype)
    layer.weight.data[...] = 0.1 + 0.5 * normal(layer.weight.data.shape, dtype)
    x, dy = normal(shape, dtype), normal(shape, dtype, seed=9)
    y, dx = layer(layout(x)), layer.backward(layout(dy))
    slope = as_double(layer.weight.data)
    want_dx, want_dslope = activations.prelu_backward(as_double(dy), as_double(x), slope)
    rtol, atol = (RTOL, ATOL) if dtype == np.float32 else (1e-12, 1e-13)
    np.testing.assert_allclose(y, activations.prelu_forward(as_double(x), slope), rtol, atol)
    np.testing.assert_allclose(dx, want_dx, rtol, atol)
    terms = x.size / slope.size
    np.testing.assert_allclose(layer.weight.grad, want_dslope, rtol, atol * max(1, terms))


def test_prelu_begins_at_a_quarter():
    assert (nn.PReLU().weight.data == 0.25).all()
    assert (nn.PReLU(num_parameters=5, init=0.5).weight.data == 0.5).all()


@pytest.mark.parametrize("slopes", [1, 3])
def test_prelu_gradients_by_central_differences(slopes):
    check_gradients(nn.PReLU(slopes), normal((2, 3, 4)))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    layout=layouts,
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_softmax_matches_the_oracle(name, shape, layout, dtype, data):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1), "dim")
    layer = (nn.Softmax if name == "softmax" else nn.LogSoftmax)(dim)
    check(in_dtype(layer, dtype), name, {"dim": dim}, 4 * normal(shape, dtype), layout)


@pytest.mark.parametrize("classes", [1, 2, 10, 1000, 1003])
def test_softmax_of_many_classes(classes):
    check(nn.Softmax(dim=1), "softmax", {"dim": 1}, normal((3, classes)))
    check(nn.LogSoftmax(dim=1), "log_softmax", {"dim": 1}, normal((3, classes)))


def test_softmax_of_large_numbers():
    x = np.array([[1e4, 1e4, -1e4], [-1e4, -1e4, -1e4], [88, 89, 90]], np.float32)
    check(nn.Softmax(dim=1), "softmax", {"dim": 1}, x)
    check(nn.LogSoftmax(dim=1), "log_softmax", {"dim": 1}, x)


def test_softmax_spreads_nan_along_its_axis_only():
    x = normal((2, 9))
    x[0, 4] = np.nan
    for layer in (nn.Softmax(dim=1), nn.LogSoftmax(dim=1)):
        y = layer(x)
        assert np.isnan(y[0]).all()
        assert np.isfinite(y[1]).all()


@pytest.mark.parametrize("layer", [nn.Softmax(dim=1), nn.LogSoftmax(dim=-1)], ids=str)
def test_softmax_gradients_by_central_differences(layer):
    check_gradients(layer, normal((2, 3, 4)))
