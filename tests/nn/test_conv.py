"""Conv2d and ConvTranspose2d against the oracle, over drawn geometries, layouts and dtypes."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import (
    DTYPES,
    as_double,
    assert_close,
    channels_last,
    check_gradients,
    check_layer,
    in_dtype,
    layouts,
    normal,
    randomize,
)
from pycnn import nn
from reference import conv

# Of the sum of the magnitudes of all products. Direct convolution stays below 1e-6; the bound leaves room for
# Winograd's transforms, which lose about one digit.
TOLERANCE = 1e-5


class Geometry(NamedTuple):
    n: int
    size: tuple[int, int]
    ic: int
    oc: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    output_padding: tuple[int, int] = (0, 0)


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def channels(draw):
    """ic, oc, groups: dense, grouped or depthwise, up to 70 channels, odd counts included."""
    kind = draw(st.sampled_from(["dense", "grouped", "depthwise"]))
    if kind == "dense":
        return draw(st.integers(1, 70)), draw(st.integers(1, 70)), 1
    if kind == "depthwise":
        groups = draw(st.integers(1, 70))
        return groups, groups * draw(st.integers(1, 2)), groups
    groups = draw(st.integers(2, 5))
    return groups * draw(st.integers(1, 14)), groups * draw(st.integers(1, 14)), groups


@st.composite
def convolutions(draw):
    """The image is at least one pixel and may be smaller than the kernel; padding then makes room."""
    ic, oc, groups = draw(channels())
    size, kernel = draw(pairs(1, 12)), draw(pairs(1, 7))
    stride, dilation = draw(pairs(1, 3)), draw(pairs(1, 3))
    before, after = [], []
    for i, k, d in zip(size, kernel, dilation, strict=True):
        missing = max(0, d * (k - 1) + 1 - i)
        before.append(draw(st.integers(0, 3)))
        after.append(max(0, missing - before[-1]) + draw(st.integers(0, 2)))
    padding = before[0], before[1], after[0], after[1]
    return Geometry(draw(st.integers(0, 3)), size, ic, oc, kernel, stride, padding, dilation, groups)


@given(g=convolutions(), bias=st.booleans(), layout=layouts, dtype=st.sampled_from(DTYPES))
@example(
    g=Geometry(2, (8, 8), 16, 16, (3, 3), padding=(1, 1, 1, 1)),
    bias=True,
    layout=channels_last,
    dtype=np.float32,
)
@example(g=Geometry(1, (1, 1), 3, 5, (1, 1)), bias=True, layout=channels_last, dtype=np.float32)
@example(
    g=Geometry(1, (1, 1), 7, 9, (7, 7), padding=(3, 3, 3, 3)),
    bias=True,
    layout=channels_last,
    dtype=np.float32,
)
@example(g=Geometry(0, (5, 5), 3, 4, (3, 3)), bias=True, layout=channels_last, dtype=np.float32)
def test_conv2d_matches_the_oracle(g, bias, layout, dtype):
    layer = nn.Conv2d(
        g.ic, g.oc, g.kernel, g.stride, g.padding, dilation=g.dilation, groups=g.groups, bias=bias
    )
    geometry = g.stride, g.padding, g.dilation, g.groups
    check_layer(
        randomize(in_dtype(layer, dtype)),
        normal((g.n, g.ic, *g.size), dtype),
        lambda x, w, b=None: conv.conv2d_forward(x, w, b, *geometry),
        lambda dy, x, w, b=None: conv.conv2d_backward(dy, x, w, *geometry),
        TOLERANCE,
        layout=layout,
        products=True,
    )


@st.composite
def transposed_convolutions(draw):
    ic, oc, groups = draw(channels())
    size, kernel, stride, dilation = (
        draw(pairs(1, 6)),
        draw(pairs(1, 5)),
        draw(pairs(1, 3)),
        draw(pairs(1, 2)),
    )
    padding, output_padding = [], []
    for i, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        full = (i - 1) * s + d * (k - 1) + 1
        padding.append(draw(st.integers(0, min(3, (full - 1) // 2))))
        output_padding.append(draw(st.integers(0, max(s, d) - 1)))
    return Geometry(
        draw(st.integers(0, 2)),
        size,
        ic,
        oc,
        kernel,
        stride,
        (*padding, *padding),
        dilation,
        groups,
        tuple(output_padding),
    )


@given(g=transposed_convolutions(), bias=st.booleans(), layout=layouts, dtype=st.sampled_from(DTYPES))
@example(g=Geometry(1, (4, 4), 8, 3, (2, 2), (2, 2)), bias=True, layout=channels_last, dtype=np.float32)
@example(g=Geometry(0, (4, 4), 8, 3, (2, 2), (2, 2)), bias=True, layout=channels_last, dtype=np.float32)
def test_conv_transpose2d_matches_the_oracle(g, bias, layout, dtype):
    layer = nn.ConvTranspose2d(
        g.ic, g.oc, g.kernel, g.stride, g.padding[:2], g.output_padding, g.groups, bias, g.dilation
    )
    geometry = g.stride, g.padding, g.output_padding, g.groups, g.dilation
    check_layer(
        randomize(in_dtype(layer, dtype)),
        normal((g.n, g.ic, *g.size), dtype),
        lambda x, w, b=None: conv.conv_transpose2d_forward(x, w, b, *geometry),
        lambda dy, x, w, b=None: conv.conv_transpose2d_backward(dy, x, w, *geometry),
        TOLERANCE,
        layout=layout,
        products=True,
    )


@pytest.mark.parametrize(
    ("channels", "layer"),
    [
        (2, nn.Conv2d(2, 3, 3, stride=2, padding=1)),
        (2, nn.Conv2d(2, 2, (2, 3), padding=(0, 1, 2, 0), dilation=(2, 1), bias=False)),
        (4, nn.Conv2d(4, 6, 3, padding=1, groups=2)),
        (3, nn.Conv2d(3, 6, 3, padding="same", groups=3)),
        (2, nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1)),
        (4, nn.ConvTranspose2d(4, 2, 2, stride=(2, 1), groups=2, bias=False)),
    ],
    ids=str,
)
def test_gradients_by_central_differences(channels, layer):
    check_gradients(layer, normal((2, channels, 5, 4)))


@pytest.mark.parametrize("kernel_size", [1, 3, (2, 4), (7, 1)])
@pytest.mark.parametrize("dilation", [1, (2, 3)])
def test_same_padding_keeps_the_size(kernel_size, dilation):
    layer = nn.Conv2d(2, 3, kernel_size, padding="same", dilation=dilation)
    kernel = layer.weight.data.shape[2:]
    spread = (dilation, dilation) if isinstance(dilation, int) else dilation
    x = normal((1, 2, 6, 5))
    y = layer(x)
    assert y.shape == (1, 3, 6, 5)
    weight, bias = as_double(layer.weight.data), as_double(layer.bias.data)
    want = conv.conv2d_forward(as_double(x), weight, bias, (1, 1), conv.same_padding(kernel, spread), spread)
    assert_close(y, want, TOLERANCE)


@pytest.mark.parametrize(
    ("padding", "sides"),
    [(2, (2, 2, 2, 2)), ((1, 2), (1, 2, 1, 2)), ((1, 2, 3, 0), (1, 2, 3, 0)), ("valid", (0, 0, 0, 0))],
)
def test_ways_to_write_padding(padding, sides):
    layer = nn.Conv2d(2, 3, 3, padding=padding)
    x = normal((1, 2, 6, 5))
    weight, bias = as_double(layer.weight.data), as_double(layer.bias.data)
    assert_close(layer(x), conv.conv2d_forward(as_double(x), weight, bias, padding=sides), TOLERANCE)


def test_defaults_and_parameter_shapes():
    layer = nn.Conv2d(6, 8, (3, 5), groups=2)
    assert layer.weight.data.shape == (8, 3, 3, 5)
    assert layer.bias.data.shape == (8,)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert layer(normal((1, 6, 5, 7))).shape == (1, 8, 3, 3)
    assert [name for name, _ in nn.Conv2d(1, 1, 1, bias=False).named_parameters()] == ["weight"]
    assert nn.ConvTranspose2d(6, 8, (3, 5), groups=2).weight.data.shape == (6, 4, 3, 5)


def test_counts():
    """Parameters: N_in * N_out * K^2 + N_out. MACs: as many products as each output pixel sums, over all of
    them.
    """
    layer = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)
    assert layer.num_parameters == 3 * 8 * 9 + 8
    assert layer.macs((1, 3, 16, 12)) == 9 * 3 * 8 * 8 * 6
    grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False)
    assert grouped.num_parameters == 2 * 8 * 9
    assert grouped.macs((1, 4, 5, 5)) == 9 * 2 * 8 * 5 * 5


def test_gradients_accumulate_until_zeroed():
    layer = nn.Conv2d(3, 4, 3)
    x, dy = normal((2, 3, 5, 5)), normal((2, 4, 3, 3), seed=1)
    layer(x)
    layer.backward(dy)
    once = layer.weight.grad.copy(), layer.bias.grad.copy()
    layer(x)
    layer.backward(dy)
    assert_close(layer.weight.grad, 2 * as_double(once[0]), TOLERANCE)
    assert_close(layer.bias.grad, 2 * as_double(once[1]), TOLERANCE)
    layer.zero_grad()
    assert not layer.weight.grad.any() and not layer.bias.grad.any()


def test_parameters_are_written_in_place():
    layer = nn.Conv2d(1, 1, 1)
    view = layer.weight.data
    view[...] = 3
    layer.bias.data[...] = -1
    x = normal((1, 1, 2, 2))
    assert_close(layer(x), 3 * as_double(x) - 1, TOLERANCE)
    layer.weight.data = np.full((1, 1, 1, 1), 5, np.float32)
    assert view[0, 0, 0, 0] == 5, "assigning .data copies into place, so views given out stay valid"


def test_infinity_and_nan_stay_in_their_receptive_field():
    layer = randomize(nn.Conv2d(1, 3, 3, padding=1))
    x = normal((1, 1, 12, 12))
    x[0, 0, 0, 0] = np.nan
    y = layer(x)
    assert np.isnan(y[0, :, :2, :2]).all()
    assert np.isfinite(y[0, :, 8:, 8:]).all()
