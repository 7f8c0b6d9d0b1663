"""Max, average and adaptive average pooling against the oracle."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from helpers import DTYPES, check_gradients, check_layer, in_dtype, layouts, normal
from pycnn import nn
from reference import pool

TOLERANCE = 2e-6

dtypes = st.sampled_from(DTYPES)
images = st.tuples(st.integers(0, 3), st.integers(1, 70), st.integers(1, 12), st.integers(1, 12))


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def windows(draw, dilations):
    """Image shape, kernel, stride, padding, dilation. The window fits the padded image."""
    shape = draw(images)
    kernel, stride, dilation = draw(pairs(1, 5)), draw(pairs(1, 3)), draw(dilations)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    for i, k, p, d in zip(shape[2:], kernel, padding, dilation, strict=True):
        assume(i + 2 * p >= d * (k - 1) + 1)
        # With a wide dilation a window may lie in the padding with every tap, and then has no maximum.
        assume(p == 0 or i >= d)
    return shape, kernel, stride, padding, dilation


@given(window=windows(pairs(1, 3)), ceil_mode=st.booleans(), layout=layouts, dtype=dtypes)
def test_max_pool_matches_the_oracle(window, ceil_mode, layout, dtype):
    shape, *geometry = window
    check_layer(
        in_dtype(nn.MaxPool2d(*geometry, ceil_mode=ceil_mode), dtype),
        normal(shape, dtype),
        lambda x: pool.max_pool2d_forward(x, *geometry, ceil_mode),
        lambda dy, x: pool.max_pool2d_backward(dy, x, *geometry, ceil_mode),
        TOLERANCE,
        layout=layout,
    )


@given(
    window=windows(st.just((1, 1))),
    ceil_mode=st.booleans(),
    count_include_pad=st.booleans(),
    divisor_override=st.none() | st.integers(1, 9),
    layout=layouts,
    dtype=dtypes,
)
def test_avg_pool_matches_the_oracle(window, ceil_mode, count_include_pad, divisor_override, layout, dtype):
    shape, kernel, stride, padding, _ = window
    arguments = kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
    check_layer(
        in_dtype(nn.AvgPool2d(*arguments), dtype),
        normal(shape, dtype),
        lambda x: pool.avg_pool2d_forward(x, *arguments),
        lambda dy, x: pool.avg_pool2d_backward(dy, x, *arguments),
        TOLERANCE,
        layout=layout,
    )


@given(shape=images, size=pairs(1, 14), layout=layouts, dtype=dtypes)
def test_adaptive_avg_pool_matches_the_oracle(shape, size, layout, dtype):
    check_layer(
        in_dtype(nn.AdaptiveAvgPool2d(size), dtype),
        normal(shape, dtype),
        lambda x: pool.adaptive_avg_pool2d_forward(x, size),
        pool.adaptive_avg_pool2d_backward,
        TOLERANCE,
        layout=layout,
    )


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (112, 96)])
def test_global_pool_matches_the_oracle(size):
    check_layer(
        nn.AdaptiveAvgPool2d(1),
        1 + normal((2, 19, *size)),
        pool.global_avg_pool2d_forward,
        pool.global_avg_pool2d_backward,
        TOLERANCE,
    )


def test_stride_defaults_to_the_kernel():
    x = normal((1, 2, 9, 8))
    assert nn.MaxPool2d((3, 2))(x).shape == (1, 2, 3, 4)
    assert nn.AvgPool2d(3)(x).shape == (1, 2, 3, 2)


@pytest.mark.parametrize("channels", [1, 8, 19])
def test_max_pool_gives_the_gradient_to_the_first_maximum(channels):
    layer = nn.MaxPool2d(2)
    layer(np.full((1, channels, 4, 4), 3, np.float32))
    dx = layer.backward(np.ones((1, channels, 2, 2), np.float32))
    np.testing.assert_array_equal(dx[0], np.broadcast_to([[1, 0, 1, 0], [0, 0, 0, 0]] * 2, (channels, 4, 4)))


@pytest.mark.parametrize("channels", [1, 8, 19])
@pytest.mark.parametrize("tap", [0, 1, 2, 3])
def test_max_pool_propagates_nan(channels, tap):
    """Wherever in the window it stands, in the vector part and in the tail of the channels."""
    x = normal((1, channels, 4, 4))
    x[0, :, tap // 2, tap % 2] = np.nan
    layer = nn.MaxPool2d(2)
    y = layer(x)
    assert np.isnan(y[0, :, 0, 0]).all()
    assert np.isfinite(y[0].reshape(channels, 4)[:, 1:]).all()
    dx = layer.backward(np.ones_like(y))
    assert (dx[0, :, tap // 2, tap % 2] == 1).all()


def test_max_pool_of_minus_infinity_never_picks_the_padding():
    layer = nn.MaxPool2d(3, stride=1, padding=1)
    y = layer(np.full((1, 3, 1, 1), -np.inf, np.float32))
    assert (y == -np.inf).all()
    np.testing.assert_array_equal(layer.backward(np.ones_like(y)), np.ones((1, 3, 1, 1)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, 1, dilation=2, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(2, count_include_pad=False),
        nn.AvgPool2d((3, 2), padding=1, divisor_override=4),
        nn.AdaptiveAvgPool2d((3, 4)),
        nn.AdaptiveAvgPool2d(1),
    ],
    ids=str,
)
def test_gradients_by_central_differences(layer):
    check_gradients(layer, normal((2, 3, 5, 6)))
