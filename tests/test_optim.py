"""Optimizers against the oracle, step by step, with gradients written by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import DTYPES, as_double, assert_close, in_dtype, normal
from pycnn import nn, optim
from reference import optim as oracle

# After 20 steps, of the largest weight. Adam's and RMSprop's division by a small root enlarges rounding.
TOLERANCE = 2e-5

STEPS = {
    "SGD": oracle.sgd_step,
    "Adam": oracle.adam_step,
    "AdamW": oracle.adamw_step,
    "RMSprop": oracle.rmsprop_step,
}

rates = st.sampled_from([1e-3, 0.01, 0.1])
decays = st.sampled_from([0.0, 1e-4, 0.1])
fractions = st.sampled_from([0.0, 0.5, 0.9])
betas = st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.5, 0.9, 0.999]))
epsilons = st.sampled_from([1e-8, 1e-3])


def sgd_options():
    plain = st.fixed_dictionaries(
        {"lr": rates, "momentum": fractions, "dampening": fractions, "weight_decay": decays}
    )
    nesterov = st.fixed_dictionaries(
        {"lr": rates, "momentum": st.just(0.9), "weight_decay": decays, "nesterov": st.just(True)}
    )
    return st.tuples(st.just("SGD"), plain | nesterov)


def adam_options(name):
    options = {"lr": rates, "betas": betas, "eps": epsilons, "weight_decay": decays}
    return st.tuples(st.just(name), st.fixed_dictionaries(options))


def rmsprop_options():
    options = {
        "lr": rates,
        "alpha": st.sampled_from([0.5, 0.99]),
        "eps": st.just(1e-3),
        "weight_decay": decays,
    }
    options |= {"momentum": fractions, "centered": st.booleans()}
    return st.tuples(st.just("RMSprop"), st.fixed_dictionaries(options))


def check(optimizer, parameters, updates, steps=20):
    """`updates`: for each parameter the oracle's step and options."""
    rng = np.random.default_rng(0)
    weights = [as_double(p.data) for p in parameters]
    states = [{} for _ in parameters]
    for _ in range(steps):
        for i, (parameter, (step, options)) in enumerate(zip(parameters, updates, strict=True)):
            gradient = rng.normal(size=parameter.data.shape).astype(parameter.data.dtype)
            parameter.grad[...] = gradient
            weights[i] = step(weights[i], as_double(gradient), states[i], **options)
        optimizer.step()
    for parameter, want in zip(parameters, weights, strict=True):
        tolerance = TOLERANCE if parameter.data.dtype == np.float32 else 1e-11
        assert_close(parameter.data, want, tolerance)


@given(
    rule=sgd_options() | adam_options("Adam") | adam_options("AdamW") | rmsprop_options(),
    features=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    dtype=st.sampled_from(DTYPES),
)
def test_twenty_steps_match_the_oracle(rule, features, dtype):
    name, options = rule
    layer = in_dtype(nn.Linear(*features), dtype)
    parameters = list(layer.parameters())
    optimizer = getattr(optim, name)(layer.parameters(), **options)
    check(optimizer, parameters, [(STEPS[name], options)] * len(parameters))


@pytest.mark.parametrize("name", STEPS)
def test_defaults_are_the_oracles(name):
    layer = nn.Linear(7, 5)
    options = {"lr": 0.01} if name == "SGD" else {}
    parameters = list(layer.parameters())
    check(getattr(optim, name)(parameters, **options), parameters, [(STEPS[name], options)] * 2)


def test_parameter_groups_have_options_of_their_own():
    layer = nn.Linear(7, 5)
    groups = [{"params": [layer.weight], "weight_decay": 0.1}, {"params": [layer.bias], "lr": 0.5}]
    optimizer = optim.SGD(groups, lr=0.01, momentum=0.9)
    weight_options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}
    bias_options = {"lr": 0.5, "momentum": 0.9}
    check(
        optimizer,
        [layer.weight, layer.bias],
        [(oracle.sgd_step, weight_options), (oracle.sgd_step, bias_options)],
    )


def test_the_learning_rate_may_change_between_steps():
    layer = nn.Linear(3, 2, bias=False)
    before = as_double(layer.weight.data)
    optimizer = optim.SGD(layer.parameters(), lr=1.0)
    for lr in (1.0, 0.1):
        optimizer.param_groups[0]["lr"] = lr
        layer.weight.grad[...] = 1
        optimizer.step()
    assert_close(layer.weight.data, before - 1.1, 1e-6)


def test_zero_grad_and_step_leave_the_views_valid():
    layer = nn.Linear(3, 2)
    weight, gradient = layer.weight.data, layer.weight.grad
    optimizer = optim.SGD(layer.parameters(), lr=0.5)
    before = weight.copy()
    gradient[...] = 1
    optimizer.step()
    assert_close(weight, as_double(before) - 0.5, 1e-6)
    optimizer.zero_grad()
    assert not gradient.any() and not layer.bias.grad.any()


def test_step_does_not_touch_the_gradient():
    layer = nn.Linear(3, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)
    layer.weight.grad[...] = normal((2, 3))
    optimizer.step()
    np.testing.assert_array_equal(layer.weight.grad, normal((2, 3)))


@pytest.mark.parametrize("name", STEPS)
def test_reaches_the_minimum_of_a_parabola(name):
    layer = nn.Linear(4, 4, bias=False)
    optimizer = getattr(optim, name)(layer.parameters(), lr=0.02)
    for _ in range(600):
        layer.weight.grad[...] = 2 * (layer.weight.data - 1)
        optimizer.step()
    np.testing.assert_allclose(layer.weight.data, 1, atol=0.05)
