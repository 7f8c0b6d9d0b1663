"""Upsample, nearest and bilinear, against the oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import DTYPES, check_gradients, check_layer, in_dtype, layouts, normal
from pycnn import nn
from reference import upsample

TOLERANCE = 1e-5  # bilinear: the position of a pixel is a float32 number too

dtypes = st.sampled_from(DTYPES)
images = st.tuples(st.integers(0, 3), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9))
pairs = st.tuples(st.integers(1, 20), st.integers(1, 20))


@given(shape=images, size=pairs, layout=layouts, dtype=dtypes)
def test_nearest_matches_the_oracle(shape, size, layout, dtype):
    check_layer(
        in_dtype(nn.Upsample(size=size), dtype),
        normal(shape, dtype),
        lambda x: upsample.nearest_forward(x, size),
        upsample.nearest_backward,
        TOLERANCE,
        layout=layout,
    )


@given(shape=images, size=pairs, align_corners=st.booleans(), layout=layouts, dtype=dtypes)
def test_bilinear_matches_the_oracle(shape, size, align_corners, layout, dtype):
    layer = nn.Upsample(size=size, mode="bilinear", align_corners=align_corners)
    check_layer(
        in_dtype(layer, dtype),
        normal(shape, dtype),
        lambda x: upsample.bilinear_forward(x, size, align_corners),
        lambda dy, x: upsample.bilinear_backward(dy, x, align_corners),
        TOLERANCE,
        layout=layout,
    )


@pytest.mark.parametrize("scale", [1, 2, 3, (2, 3), 1.5, 2.25, (0.5, 1.7)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scale_factor(scale, mode, dtype):
    """The scale itself sets the positions, not the ratio of the rounded sizes."""
    factors = scale if isinstance(scale, tuple) else (scale, scale)
    size = int(5 * factors[0]), int(6 * factors[1])
    check_layer(
        in_dtype(nn.Upsample(scale_factor=scale, mode=mode), dtype),
        normal((2, 9, 5, 6), dtype),
        lambda x: getattr(upsample, f"{mode}_forward")(x, size, scale=factors),
        lambda dy, x: getattr(upsample, f"{mode}_backward")(dy, x, scale=factors),
        TOLERANCE,
    )


def test_nearest_by_hand():
    x = np.array([[1, 2], [3, 4]], np.float32).reshape(1, 1, 2, 2)
    layer = nn.Upsample(scale_factor=2)
    np.testing.assert_array_equal(layer(x)[0, 0], [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])
    np.testing.assert_array_equal(layer.backward(np.ones((1, 1, 4, 4), np.float32))[0, 0], [[4, 4], [4, 4]])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Upsample(scale_factor=2),
        nn.Upsample(size=(3, 7)),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(size=(3, 7), mode="bilinear", align_corners=True),
    ],
    ids=str,
)
def test_gradients_by_central_differences(layer):
    check_gradients(layer, normal((2, 3, 4, 5)))
