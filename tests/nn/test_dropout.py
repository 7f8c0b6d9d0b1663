"""Dropout: the mask is random but reproducible, and what it does to values and gradients is exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pycnn
from helpers import DTYPES, as_double, assert_close, check_gradients, in_dtype, layouts, normal
from pycnn import nn
from reference import dropout

TOLERANCE = 1e-6


@given(
    shape=st.builds(lambda n, rest: (n, *rest), st.integers(0, 4), st.lists(st.integers(1, 9), max_size=3)),
    p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    layout=layouts,
    dtype=st.sampled_from(DTYPES),
)
def test_matches_the_oracle_given_its_mask(shape, p, layout, dtype):
    layer = in_dtype(nn.Dropout(p), dtype)
    x, dy = 1 + np.abs(normal(shape, dtype)), normal(shape, dtype, seed=1)
    y, dx = layer(layout(x)), layer.backward(layout(dy))
    mask = y != 0  # x has no zeros
    assert y.dtype == dx.dtype == dtype
    assert_close(y, dropout.dropout_forward(as_double(x), mask, p), TOLERANCE)
    assert_close(dx, dropout.dropout_backward(as_double(dy), mask, p), TOLERANCE)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_drops_a_share_of_p(p):
    pycnn.manual_seed(0)
    n = 200_000
    dropped = (nn.Dropout(p)(np.ones((1, 10, 100, n // 1000), np.float32)) == 0).mean()
    five_sigma = 5 * np.sqrt(p * (1 - p) / n)
    assert abs(dropped - p) < five_sigma


def test_neighbours_are_independent():
    pycnn.manual_seed(0)
    kept = nn.Dropout(0.5)(np.ones((1000, 256), np.float32)) != 0
    for a, b in ((kept[:, 1:], kept[:, :-1]), (kept[1:], kept[:-1])):
        assert abs((a == b).mean() - 0.5) < 5 * 0.5 / np.sqrt(a.size)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_is_the_identity_in_evaluation(p):
    layer = nn.Dropout(p).eval()
    x = normal((2, 3, 4, 5))
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)


def test_the_seed_fixes_the_masks():
    x = np.ones((4, 1000), np.float32)
    layer = nn.Dropout(0.5)
    pycnn.manual_seed(3)
    first, second = layer(x).copy(), layer(x).copy()
    assert (first != second).any(), "each forward draws a new mask"
    pycnn.manual_seed(3)
    np.testing.assert_array_equal(layer(x), first)
    np.testing.assert_array_equal(layer(x), second)
    pycnn.manual_seed(4)
    assert (layer(x) != first).any()


def test_two_layers_draw_different_masks():
    pycnn.manual_seed(0)
    y = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))(np.ones((1, 10_000), np.float32))
    kept_by_both = (y != 0).mean()
    assert abs(kept_by_both - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 10_000)


def test_the_mask_does_not_depend_on_the_number_of_threads():
    x = np.ones((64, 32, 16, 16), np.float32)
    layer = nn.Dropout(0.5)
    threads = pycnn.get_num_threads()
    masks = []
    try:
        for n in (1, 2, 3):
            pycnn.set_num_threads(n)
            pycnn.manual_seed(0)
            masks.append(layer(x).copy())
    finally:
        pycnn.set_num_threads(threads)
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


def test_gradients_by_central_differences():
    check_gradients(nn.Dropout(0.4), normal((3, 4, 5)), before=lambda: pycnn.manual_seed(7))
