"""What an optimizer remembers: through freezing, changes of dtype, later groups, and saving; and gradient clipping."""

import copy
import math
import pickle

import numpy as np
import pytest

from helpers import as_double, assert_close, normal, raises
from pycnn import nn, optim
from reference import optim as oracle

KINDS = {
    "SGD": (lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.5), oracle.sgd_step),
    "Adam": (lambda p: optim.Adam(p, 0.1), oracle.adam_step),
    "RMSprop": (lambda p: optim.RMSprop(p, 0.1, momentum=0.9, centered=True), oracle.rmsprop_step),
}
OPTIONS = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
    "Adam": {"lr": 0.1},
    "RMSprop": {"lr": 0.1, "momentum": 0.9, "centered": True},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


class Followed:
    """Parameters beside the oracle's idea of them."""

    def __init__(self, kind, shapes=((5, 3), (7,), (2, 2, 3))):
        self.step_of, self.options = KINDS[kind][1], OPTIONS[kind]
        self.parameters = [nn.Parameter(normal(shape, seed=i)) for i, shape in enumerate(shapes)]
        self.weights = [as_double(p.data) for p in self.parameters]
        self.states = [{} for _ in self.parameters]
        self.rng = np.random.default_rng(0)

    def step(self, optimizer, count=3):
        for _ in range(count):
            for i, p in enumerate(self.parameters):
                gradient = self.rng.normal(size=p.shape).astype(np.float32)
                p.grad = gradient
                if p.requires_grad:
                    state = self.states[i]
                    self.weights[i] = self.step_of(self.weights[i], as_double(gradient), state, **self.options)
            optimizer.step()
        for p, want in zip(self.parameters, self.weights, strict=True):
            assert_close(p.data, want, 1e-4)


@every_kind
def test_frozen_parameters_stand_still_and_their_state_waits(kind):
    followed = Followed(kind)
    optimizer = KINDS[kind][0](followed.parameters)
    followed.step(optimizer)
    followed.parameters[1].requires_grad = False
    followed.step(optimizer)
    followed.parameters[1].requires_grad = True  # it has fewer steps behind it than the others from here on
    followed.step(optimizer)
    followed.parameters[0].requires_grad = False
    followed.step(optimizer)


@every_kind
def test_state_survives_a_change_of_dtype(kind):
    followed = Followed(kind)
    optimizer = KINDS[kind][0](followed.parameters)
    followed.step(optimizer)
    for p in followed.parameters:
        p.astype_(np.float64)
    followed.step(optimizer)
    assert all(p.dtype == np.float64 for p in followed.parameters)


@every_kind
def test_a_group_that_comes_later_starts_its_own_count(kind):
    followed = Followed(kind)
    optimizer = KINDS[kind][0](followed.parameters[:2])
    late = followed.parameters.pop(2), followed.weights.pop(2), followed.states.pop(2)
    followed.step(optimizer)
    optimizer.add_param_group({"params": late[0]})
    for own, item in zip((followed.parameters, followed.weights, followed.states), late, strict=True):
        own.append(item)
    followed.step(optimizer)


def test_momentum_may_be_switched_on_later():
    followed = Followed("SGD")
    optimizer = optim.SGD(followed.parameters, 0.1, dampening=0.5)
    followed.options = {"lr": 0.1}
    followed.step(optimizer)
    optimizer.param_groups[0]["momentum"] = 0.9
    followed.options = OPTIONS["SGD"]
    followed.step(optimizer)


@every_kind
@pytest.mark.parametrize("through", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
def test_saved_state_goes_on_to_the_bit(kind, through):
    followed = Followed(kind)
    optimizer = KINDS[kind][0](followed.parameters)
    followed.step(optimizer)
    followed.parameters[2].requires_grad = False
    followed.step(optimizer)
    state = through(optimizer.state_dict())
    values = [p.data.copy() for p in followed.parameters]

    others = [nn.Parameter(value) for value in values]
    resumed = KINDS[kind][0](others)
    others[2].requires_grad = False
    resumed.lr = 99.0
    resumed.load_state_dict(state)
    assert resumed.lr == optimizer.lr
    for seed in range(3):
        for p, other in zip(followed.parameters, others, strict=True):
            p.grad = other.grad = normal(p.shape, seed=seed)
        optimizer.step()
        resumed.step()
        for p, other in zip(followed.parameters, others, strict=True):
            np.testing.assert_array_equal(p.data, other.data)


def test_state_dict_is_pytorchs_and_a_copy():
    torch = pytest.importorskip("torch")
    parameter = nn.Parameter(normal((3, 2)))
    ours = optim.Adam([parameter], 0.1)
    tensor = torch.nn.Parameter(torch.tensor(parameter.data.copy()))
    theirs = torch.optim.Adam([tensor], 0.1)
    parameter.grad = normal((3, 2), seed=1)
    tensor.grad = torch.tensor(parameter.grad.copy())
    ours.step()
    theirs.step()
    found, want = ours.state_dict(), theirs.state_dict()
    assert found["param_groups"][0]["params"] == want["param_groups"][0]["params"] == [0]
    assert found["state"][0].keys() == want["state"][0].keys()
    assert found["state"][0]["step"] == want["state"][0]["step"] == 1
    for name in ("exp_avg", "exp_avg_sq"):
        np.testing.assert_allclose(found["state"][0][name], want["state"][0][name].numpy(), rtol=1e-5)
        found["state"][0][name][...] = 7
        assert (ours.state_dict()["state"][0][name] != 7).all()


def test_padding_between_parameters_stays_zero():
    """The sweep goes over it, and neighbours must not see it."""
    parameters = [nn.Parameter(normal((3,), seed=i)) for i in range(4)]
    slab, first = parameters[0]._slab.data, parameters[0]._offset
    optimizer = optim.AdamW(parameters, 0.5, weight_decay=0.5)
    for p in parameters:
        p.grad = np.ones(3, np.float32)
    for _ in range(3):
        optimizer.step()
    covered = slab[first : parameters[-1]._offset + 3].copy()
    for p in parameters:
        covered[p._offset - first : p._offset - first + 3] = 0
    assert not covered.any()


def test_lr_is_that_of_all_groups():
    first, second = nn.Parameter(np.zeros(2)), nn.Parameter(np.zeros(2))
    optimizer = optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.5}], lr=0.1)
    assert optimizer.lr == 0.1
    optimizer.lr = 0.2
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]
    with raises(ValueError, "lr", "-1"):
        optimizer.lr = -1


BAD = {
    "a module": (lambda p: optim.SGD(nn.ReLU(), 0.1), TypeError, ("params", "ReLU", "model.parameters()")),
    "two groups": (
        lambda p: optim.SGD([{"params": [p]}, {"params": [p]}], 0.1),
        ValueError,
        ("params", "another group"),
    ),
    "an option of no use": (
        lambda p: optim.SGD([{"params": [p], "learning_rate": 1}], 0.1),
        ValueError,
        ("learning_rate", "lr"),
    ),
    "no params": (lambda p: optim.SGD([{"lr": 1}], 0.1), ValueError, ("params",)),
    "option of a group": (
        lambda p: optim.SGD([{"params": [p], "momentum": -1}], 0.1),
        ValueError,
        ("momentum", "-1"),
    ),
    "dtypes": (
        lambda p: optim.SGD([p, nn.Parameter(np.zeros(2), dtype=np.float64)], 0.1).step(),
        TypeError,
        ("params", "float32", "float64"),
    ),
    "alpha": (lambda p: optim.RMSprop([p], alpha=1.0), ValueError, ("alpha", "1.0")),
    "groups of the state": (
        lambda p: optim.SGD([p], 0.1).load_state_dict({"state": {}, "param_groups": []}),
        ValueError,
        ("state_dict", "[]", "[1]"),
    ),
    "shape of the state": (
        lambda p: optim.Adam([p]).load_state_dict(
            {
                "state": {0: {"step": 1, "exp_avg": np.zeros(3), "exp_avg_sq": np.zeros(3)}},
                "param_groups": optim.Adam([p]).state_dict()["param_groups"],
            }
        ),
        ValueError,
        ("state_dict", "exp_avg", "(3,)", "(2,)"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refusals(name):
    make, error, words = BAD[name]
    with raises(error, *words):
        make(nn.Parameter(np.zeros(2, np.float32)))


# Clipping.


def gradients(seed=0):
    parameters = [nn.Parameter(np.zeros(shape, np.float32)) for shape in ((40, 30), (7,), (3, 2, 5, 5))]
    for i, p in enumerate(parameters):
        p.grad = 3 * normal(p.shape, seed=seed + i)
    return parameters


@pytest.mark.parametrize("max_norm", [0.0, 1.0, 1e6])
def test_norm_is_clipped_as_the_oracle_does(max_norm):
    parameters = gradients()
    want, norm = oracle.clip_grad_norm([as_double(p.grad) for p in parameters], max_norm)
    assert optim.clip_grad_norm_(parameters, max_norm) == pytest.approx(norm, rel=1e-6)
    for p, gradient in zip(parameters, want, strict=True):
        assert_close(p.grad, gradient, 1e-6)


def test_largest_magnitude_is_clipped():
    parameters = gradients()
    largest = max(np.abs(p.grad).max() for p in parameters)
    assert optim.clip_grad_norm_(iter(parameters), 0.5, math.inf) == pytest.approx(largest)
    assert max(np.abs(p.grad).max() for p in parameters) == pytest.approx(0.5, rel=1e-5)


def test_frozen_parameters_do_not_count():
    parameters = gradients()
    parameters[0].requires_grad = False
    frozen = parameters[0].grad.copy()
    norm = optim.clip_grad_norm_(parameters, 1.0)
    assert norm < np.linalg.norm(frozen)
    np.testing.assert_array_equal(parameters[0].grad, frozen)


def test_nan_is_not_hidden():
    parameters = gradients()
    parameters[1].grad[3] = np.nan
    with raises(ValueError, "parameters", "nan"):
        optim.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    assert np.isfinite(parameters[0].grad).all()
    assert math.isnan(optim.clip_grad_norm_(parameters, 1.0))
    assert np.isnan(parameters[0].grad).all()


def test_values_are_clipped():
    parameters = gradients()
    want = [np.clip(p.grad, -0.5, 0.5) for p in parameters]
    optim.clip_grad_value_(parameters, 0.5)
    for p, gradient in zip(parameters, want, strict=True):
        np.testing.assert_array_equal(p.grad, gradient)


def test_clipping_refuses():
    with raises(ValueError, "max_norm", "-1"):
        optim.clip_grad_norm_(gradients(), -1)
    with raises(ValueError, "norm_type", "1"):
        optim.clip_grad_norm_(gradients(), 1.0, 1)
    with raises(ValueError, "parameters"):
        optim.clip_grad_norm_([], 1.0)
