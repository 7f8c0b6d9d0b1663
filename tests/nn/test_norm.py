"""Batch, instance, layer and group normalization against the oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    DTYPES,
    as_double,
    assert_close,
    buffer,
    check_gradients,
    check_layer,
    in_dtype,
    layouts,
    normal,
    randomize,
)
from pycnn import nn
from reference import norm

TOLERANCE = 1e-5
EPS = 1e-5

dtypes = st.sampled_from(DTYPES)
images = st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9))


def tolerance(x, axes):
    """Dividing by a small deviation enlarges what rounding has lost of x."""
    std = np.sqrt(as_double(x).var(axis=axes) + EPS)
    return TOLERANCE * max(1.0, 1 / std.min(initial=1.0))


def spread(shape, dtype):
    """Channels with means and deviations of their own."""
    return 2 + 3 * normal(shape, dtype)


@given(
    shape=images.filter(lambda s: s[0] * s[2] * s[3] > 1), affine=st.booleans(), layout=layouts, dtype=dtypes
)
def test_batch_norm_training_matches_the_oracle(shape, affine, layout, dtype):
    x = spread(shape, dtype)
    check_layer(
        randomize(in_dtype(nn.BatchNorm2d(shape[1], affine=affine), dtype)),
        x,
        lambda x, *affine: norm.batch_norm_forward(x, *affine),
        lambda dy, x, w=None, b=None: norm.batch_norm_backward(dy, x, w),
        tolerance(x, (0, 2, 3)),
        layout=layout,
    )


@given(shape=images, affine=st.booleans(), layout=layouts, dtype=dtypes)
def test_batch_norm_evaluation_matches_the_oracle(shape, affine, layout, dtype):
    layer = randomize(in_dtype(nn.BatchNorm2d(shape[1], affine=affine), dtype))
    layer(spread((3, shape[1], 2, 2), dtype))  # running statistics that are not those of a fresh layer
    layer.eval()
    mean, var = buffer(layer, "running_mean"), buffer(layer, "running_var")
    check_layer(
        layer,
        spread(shape, dtype),
        lambda x, *affine: norm.batch_norm_eval_forward(x, as_double(mean), as_double(var), *affine),
        lambda dy, x, w=None, b=None: norm.batch_norm_eval_backward(
            dy, x, as_double(mean), as_double(var), w
        ),
        TOLERANCE * max(1.0, 1 / np.sqrt(var.min())),
        layout=layout,
    )
    np.testing.assert_array_equal(buffer(layer, "running_mean"), mean)
    np.testing.assert_array_equal(buffer(layer, "running_var"), var)


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_running_statistics(momentum, dtype):
    layer = in_dtype(nn.BatchNorm2d(5, momentum=momentum), dtype)
    mean, var = np.zeros(5), np.ones(5)
    np.testing.assert_array_equal(buffer(layer, "running_mean"), mean)
    np.testing.assert_array_equal(buffer(layer, "running_var"), var)
    for step in range(4):
        x = 2 + 3 * normal((2, 5, 3, 4), dtype, seed=step)
        layer(x)
        mean, var = norm.batch_norm_running(as_double(x), mean, var, momentum, batches_before=step)
    assert_close(buffer(layer, "running_mean"), mean, TOLERANCE)
    assert_close(buffer(layer, "running_var"), var, TOLERANCE)
    assert buffer(layer, "num_batches_tracked") == 4


def test_batch_norm_without_running_statistics_uses_the_batch_in_evaluation():
    layer = nn.BatchNorm2d(3, track_running_stats=False)
    x = spread((2, 3, 4, 4), np.float32)
    in_training = layer(x)
    layer.eval()
    np.testing.assert_array_equal(layer(x), in_training)


def test_batch_norm_of_a_large_mean():
    """mean = 1000 * std: E[x^2] - E[x]^2 would lose the variance, a centred one keeps it."""
    x = (1000 + normal((8, 17, 9, 9))).astype(np.float32)
    y = nn.BatchNorm2d(17)(x)
    # float32 holds numbers near 1000 to 6e-5, and so the mean; half of the digits must be left.
    assert_close(y, norm.batch_norm_forward(as_double(x)), 5e-4)


@given(shape=images.filter(lambda s: s[2] * s[3] > 1), affine=st.booleans(), layout=layouts, dtype=dtypes)
def test_instance_norm_matches_the_oracle(shape, affine, layout, dtype):
    x = spread(shape, dtype)
    check_layer(
        randomize(in_dtype(nn.InstanceNorm2d(shape[1], affine=affine), dtype)),
        x,
        lambda x, *affine: norm.instance_norm_forward(x, *affine),
        lambda dy, x, w=None, b=None: norm.instance_norm_backward(dy, x, w),
        tolerance(x, (2, 3)),
        layout=layout,
    )


def test_instance_norm_running_statistics():
    layer = nn.InstanceNorm2d(5, momentum=0.3, track_running_stats=True)
    mean, var = np.zeros(5), np.ones(5)
    for step in range(3):
        x = 2 + 3 * normal((2, 5, 3, 4), seed=step)
        layer(x)
        mean, var = norm.instance_norm_running(as_double(x), mean, var, momentum=0.3)
    assert_close(buffer(layer, "running_mean"), mean, TOLERANCE)
    assert_close(buffer(layer, "running_var"), var, TOLERANCE)
    layer.eval()
    assert_close(layer(x), norm.batch_norm_eval_forward(as_double(x), mean, var), TOLERANCE)


@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple),
    axes=st.integers(1, 3),
    affine=st.booleans(),
    layout=layouts,
    dtype=dtypes,
)
def test_layer_norm_matches_the_oracle(shape, axes, affine, layout, dtype):
    normalized = shape[-min(axes, len(shape) - 1) :]
    x = spread(shape, dtype)
    check_layer(
        randomize(in_dtype(nn.LayerNorm(normalized, elementwise_affine=affine), dtype)),
        x,
        lambda x, *affine: norm.layer_norm_forward(x, normalized, *affine),
        lambda dy, x, w=None, b=None: norm.layer_norm_backward(dy, x, normalized, w),
        tolerance(x, tuple(range(x.ndim - len(normalized), x.ndim))),
        layout=layout,
    )


def test_layer_norm_takes_a_single_number():
    layer = nn.LayerNorm(70)
    assert layer.weight.data.shape == (70,)
    x = spread((3, 70), np.float32)
    assert_close(layer(x), norm.layer_norm_forward(as_double(x), (70,)), TOLERANCE)


@given(
    n=st.integers(1, 4),
    groups=st.integers(1, 8),
    width=st.integers(1, 9),
    size=st.tuples(st.integers(1, 7), st.integers(2, 7)),
    affine=st.booleans(),
    layout=layouts,
    dtype=dtypes,
)
def test_group_norm_matches_the_oracle(n, groups, width, size, affine, layout, dtype):
    x = spread((n, groups * width, *size), dtype)
    check_layer(
        randomize(in_dtype(nn.GroupNorm(groups, groups * width, affine=affine), dtype)),
        x,
        lambda x, *affine: norm.group_norm_forward(x, groups, *affine),
        lambda dy, x, w=None, b=None: norm.group_norm_backward(dy, x, groups, w),
        tolerance(x.reshape(n, groups, -1), 2),
        layout=layout,
    )


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4).eval(),
        nn.InstanceNorm2d(4, affine=True),
        nn.LayerNorm((3, 2)),
        nn.LayerNorm((4, 3, 2), elementwise_affine=False),
        nn.GroupNorm(2, 4),
    ],
    ids=str,
)
def test_gradients_by_central_differences(layer):
    check_gradients(randomize(layer), normal((3, 4, 3, 2)))


@pytest.mark.parametrize(
    ("layer", "forward"),
    [
        (nn.BatchNorm2d(4, eps=0.3), lambda x: norm.batch_norm_forward(x, eps=0.3)),
        (nn.InstanceNorm2d(4, eps=0.3), lambda x: norm.instance_norm_forward(x, eps=0.3)),
        (nn.LayerNorm(2, eps=0.3), lambda x: norm.layer_norm_forward(x, (2,), eps=0.3)),
        (nn.GroupNorm(2, 4, eps=0.3), lambda x: norm.group_norm_forward(x, 2, eps=0.3)),
    ],
    ids=str,
)
def test_eps_counts(layer, forward):
    x = normal((3, 4, 3, 2))
    assert_close(layer(x), forward(as_double(x)), TOLERANCE)


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4), nn.LayerNorm((4, 3, 2)), nn.GroupNorm(2, 4)], ids=str)
def test_fresh_affine_is_the_identity(layer):
    assert (layer.weight.data == 1).all()
    assert (layer.bias.data == 0).all()


def test_instance_norm_is_not_affine_unless_asked():
    assert not list(nn.InstanceNorm2d(4).parameters())
