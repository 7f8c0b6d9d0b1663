"""Linear against the oracle."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import DTYPES, channels_last, check_gradients, check_layer, in_dtype, layouts, normal, randomize
from pycnn import nn
from reference import linear

TOLERANCE = 2e-6  # of the sum of the magnitudes of all products


@given(
    leading=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    features=st.tuples(st.integers(1, 300), st.integers(1, 70)),
    bias=st.booleans(),
    layout=layouts,
    dtype=st.sampled_from(DTYPES),
)
@example(leading=[2, 3, 4], features=(5, 7), bias=True, layout=channels_last, dtype=np.float32)
def test_linear_matches_the_oracle(leading, features, bias, layout, dtype):
    """Leading axes of any number; a rank-4 input has its features on the last axis, as any other."""
    layer = randomize(in_dtype(nn.Linear(*features, bias=bias), dtype))
    check_layer(
        layer,
        normal((*leading, features[0]), dtype),
        lambda x, w, b=None: linear.linear_forward(x, w, b),
        lambda dy, x, w, b=None: linear.linear_backward(dy, x, w),
        TOLERANCE,
        layout=layout,
        products=True,
    )


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_by_central_differences(bias):
    check_gradients(nn.Linear(5, 3, bias=bias), normal((4, 5)))


def test_parameter_shapes_and_counts():
    layer = nn.Linear(5, 3)
    assert layer.weight.data.shape == (3, 5)
    assert layer.bias.data.shape == (3,)
    assert layer.num_parameters == 3 * 5 + 3
    assert layer.macs((1, 5)) == 15
