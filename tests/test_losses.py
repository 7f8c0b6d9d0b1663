"""Losses against the oracle: values, gradients, targets of every kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcheck import central_difference
from helpers import DTYPES, as_double, assert_close, layouts, normal
from pycnn import losses
from reference import losses as oracle

TOLERANCE = 2e-6

dtypes = st.sampled_from(DTYPES)
reductions = st.sampled_from(["mean", "sum"])
integers = st.sampled_from(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
elements = st.builds(lambda n, rest: (n, *rest), st.integers(0, 9), st.lists(st.integers(1, 9), max_size=3))


@st.composite
def classified(draw):
    """Shape of the logits, (n, c) or (n, c, h, w)."""
    n, c = draw(st.integers(0, 9)), draw(st.integers(1, 40))
    return draw(st.sampled_from([(n, c), (n, c, draw(st.integers(1, 5)), draw(st.integers(1, 5)))]))


def check(loss, forward, backward, x, *targets, layout=np.ascontiguousarray):
    """Value and gradient; the value is a float, the gradient an array like x."""
    tolerance = TOLERANCE if x.dtype == np.float32 else 1e-12
    value = loss(layout(x), *(layout(t) for t in targets))
    dx = loss.backward()
    assert isinstance(value, float)
    want = float(forward(as_double(x), *targets))
    # All targets ignored: 0 / 0.
    assert (np.isnan(value) and np.isnan(want)) or abs(value - want) <= tolerance * max(1.0, abs(want)) * 5
    assert dx.dtype == x.dtype
    assert_close(dx, backward(as_double(x), *targets), tolerance, name="dx")


def labels(shape, integer="i8"):
    return np.random.default_rng(1).integers(0, shape[1], (shape[0], *shape[2:])).astype(integer)


@given(
    shape=classified(),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    weighted=st.booleans(),
    ignore=st.booleans(),
    reduction=reductions,
    layout=layouts,
    dtype=dtypes,
    integer=integers,
)
def test_cross_entropy_matches_the_oracle(
    shape, smoothing, weighted, ignore, reduction, layout, dtype, integer
):
    options = {"reduction": reduction, "label_smoothing": smoothing, "ignore_index": 0 if ignore else -100}
    weight = np.random.default_rng(2).uniform(0.5, 2, shape[1]).astype(dtype) if weighted else None
    check(
        losses.CrossEntropyLoss(weight=weight, **options),
        lambda x, t: oracle.cross_entropy_forward(x, t.astype(int), weight, **options),
        lambda x, t: oracle.cross_entropy_backward(x, t.astype(int), weight, **options),
        3 * normal(shape, dtype),
        labels(shape, integer),
        layout=layout,
    )


@given(
    shape=classified(),
    weighted=st.booleans(),
    ignore=st.booleans(),
    reduction=reductions,
    layout=layouts,
    dtype=dtypes,
)
def test_nll_matches_the_oracle(shape, weighted, ignore, reduction, layout, dtype):
    options = {"reduction": reduction, "ignore_index": 0 if ignore else -100}
    weight = np.random.default_rng(2).uniform(0.5, 2, shape[1]).astype(dtype) if weighted else None
    check(
        losses.NLLLoss(weight=weight, **options),
        lambda x, t: oracle.nll_forward(x, t, weight, **options),
        lambda x, t: oracle.nll_backward(x, t, weight, **options),
        normal(shape, dtype),
        labels(shape),
        layout=layout,
    )


@pytest.mark.parametrize(("name", "prefix"), [("MSELoss", "mse"), ("L1Loss", "l1")])
@given(shape=elements, reduction=reductions, layout=layouts, dtype=dtypes)
def test_distance_matches_the_oracle(name, prefix, shape, reduction, layout, dtype):
    check(
        getattr(losses, name)(reduction=reduction),
        lambda x, t: getattr(oracle, f"{prefix}_forward")(x, as_double(t), reduction),
        lambda x, t: getattr(oracle, f"{prefix}_backward")(x, as_double(t), reduction),
        normal(shape, dtype),
        normal(shape, dtype, seed=1),
        layout=layout,
    )


@given(
    shape=elements,
    weighted=st.booleans(),
    positive=st.booleans(),
    reduction=reductions,
    layout=layouts,
    dtype=dtypes,
)
def test_bce_with_logits_matches_the_oracle(shape, weighted, positive, reduction, layout, dtype):
    uniform = np.random.default_rng(3).uniform
    options = {"reduction": reduction}
    if weighted:
        options["weight"] = uniform(0.5, 2, shape[-1]).astype(dtype)
    if positive:
        options["pos_weight"] = uniform(0.5, 2, shape[-1]).astype(dtype)
    check(
        losses.BCEWithLogitsLoss(**options),
        lambda x, t: oracle.bce_with_logits_forward(x, as_double(t), **options),
        lambda x, t: oracle.bce_with_logits_backward(x, as_double(t), **options),
        4 * normal(shape, dtype),
        uniform(0, 1, shape).astype(dtype),
        layout=layout,
    )


@pytest.mark.parametrize("magnitude", [89, 1e4])
def test_large_logits_stay_finite(magnitude):
    x = np.array([[magnitude, -magnitude, 0], [-magnitude, -magnitude, -magnitude]], np.float32)
    targets = np.array([1, 2])
    check(losses.CrossEntropyLoss(), oracle.cross_entropy_forward, oracle.cross_entropy_backward, x, targets)
    t = np.array([[0, 1, 1], [1, 0, 0.5]], np.float32)
    check(losses.BCEWithLogitsLoss(), oracle.bce_with_logits_forward, oracle.bce_with_logits_backward, x, t)


def test_a_class_ruled_out_by_minus_infinity_does_not_spoil_the_loss():
    x = np.array([[0, 0, -np.inf]], np.float32)
    loss = losses.CrossEntropyLoss()
    assert loss(x, np.array([0])) == pytest.approx(np.log(2), rel=1e-6)
    np.testing.assert_allclose(loss.backward(), [[-0.5, 0.5, 0]], atol=1e-6)


def test_nan_logits_give_a_nan_loss():
    x = normal((3, 4))
    x[1, 2] = np.nan
    assert np.isnan(losses.CrossEntropyLoss()(x, np.zeros(3, int)))
    assert np.isnan(losses.MSELoss()(x, np.zeros((3, 4), np.float32)))
    assert np.isnan(losses.BCEWithLogitsLoss()(x, np.zeros((3, 4), np.float32)))


def test_mean_is_taken_over_the_targets_that_count():
    x, targets = normal((4, 3)), np.array([0, 1, 255, 255])
    loss = losses.CrossEntropyLoss(ignore_index=255)
    assert loss(x, targets) == pytest.approx(losses.CrossEntropyLoss()(x[:2], targets[:2]), rel=1e-6)
    loss(x, targets)
    assert not loss.backward()[2:].any()


@pytest.mark.parametrize(
    ("loss", "x", "targets"),
    [
        (
            losses.CrossEntropyLoss(label_smoothing=0.1, ignore_index=1),
            normal((4, 5), np.float64),
            np.array([0, 4, 1, 2]),
        ),
        (losses.CrossEntropyLoss(), normal((2, 3, 2, 2), np.float64), np.array([[[0, 1], [2, 0]]] * 2)),
        (losses.NLLLoss(reduction="sum"), normal((4, 5), np.float64), np.array([0, 4, 1, 2])),
        (losses.MSELoss(), normal((3, 4), np.float64), normal((3, 4), np.float64, seed=1)),
        (losses.L1Loss(), normal((3, 4), np.float64), normal((3, 4), np.float64, seed=1)),
        (losses.BCEWithLogitsLoss(), normal((3, 4), np.float64), np.full((3, 4), 0.3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gradients_by_central_differences(loss, x, targets):
    x = x.copy()
    loss(x, targets)
    dx = np.array(loss.backward())
    np.testing.assert_allclose(dx, central_difference(lambda: loss(x, targets), x), rtol=1e-5, atol=1e-8)
