"""Schedules: the rates of PyTorch where it is installed, values by hand, resuming, and refusals."""

import math

import numpy as np
import pytest

from helpers import raises
from pycnn import nn, optim
from pycnn.optim import lr_scheduler


def optimizer(kind="SGD", groups=(0.1, 0.02), **options):
    parameters = [{"params": [nn.Parameter(np.zeros(2, np.float32))], "lr": lr} for lr in groups]
    return getattr(optim, kind)(parameters, **options)


# name, arguments
SCHEDULES = [
    ("StepLR", {"step_size": 4}),
    ("StepLR", {"step_size": 1, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [9, 3, 3], "gamma": 0.3}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.01, "end_factor": 0.5, "total_iters": 7}),
    ("LambdaLR", {"lr_lambda": lambda step: 0.9**step}),
    ("LambdaLR", {"lr_lambda": [lambda step: 1 / (1 + step), lambda step: 0.5]}),
    ("CosineAnnealingLR", {"T_max": 10}),
    ("CosineAnnealingLR", {"T_max": 40, "eta_min": 0.003}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.001}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 31}),
    ("OneCycleLR", {"max_lr": [0.5, 0.1], "epochs": 8, "steps_per_epoch": 5, "pct_start": 0.1}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 35, "three_phase": True, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 30, "div_factor": 10, "final_div_factor": 5}),
]


def momentum(group):
    return group["betas"][0] if "betas" in group else group["momentum"]


@pytest.mark.parametrize(("name", "arguments"), SCHEDULES, ids=[f"{name} {[*a]}" for name, a in SCHEDULES])
@pytest.mark.parametrize(("kind", "options"), [("SGD", {"momentum": 0.9}), ("Adam", {})], ids=["SGD", "Adam"])
def test_rates_are_pytorchs(name, arguments, kind, options):
    torch = pytest.importorskip("torch")
    ours = optimizer(kind, **options)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": group["lr"]} for group in ours.param_groups]
    theirs = getattr(torch.optim, kind)(groups, **options)
    our_schedule = getattr(lr_scheduler, name)(ours, **arguments)
    their_schedule = getattr(torch.optim.lr_scheduler, name)(theirs, **arguments)
    for step in range(29):
        for our_group, their_group in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert our_group["lr"] == pytest.approx(their_group["lr"], rel=1e-9, abs=1e-15), f"step {step}"
            assert momentum(our_group) == pytest.approx(momentum(their_group)), f"step {step}"
        assert our_schedule.get_last_lr() == pytest.approx(their_schedule.get_last_lr())
        theirs.step()
        our_schedule.step()
        their_schedule.step()


PLATEAUS = [
    {},
    {"patience": 2, "factor": 0.5},
    {"patience": 1, "cooldown": 3, "min_lr": [0.004, 0.0]},
    {"patience": 0, "threshold": 0.05, "threshold_mode": "abs", "eps": 0.005},
    {"mode": "max", "patience": 2, "threshold": 0.1},
]


@pytest.mark.parametrize("arguments", PLATEAUS, ids=str)
def test_plateaus_are_pytorchs(arguments):
    torch = pytest.importorskip("torch")
    ours = optimizer()
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": group["lr"]} for group in ours.param_groups]
    theirs = torch.optim.SGD(groups, lr=1)
    our_schedule = lr_scheduler.ReduceLROnPlateau(ours, **arguments)
    their_schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **arguments)
    rng = np.random.default_rng(3)
    for step in range(60):
        metric = math.nan if step == 7 else float(1 + math.exp(-step / 5) + 0.05 * rng.normal())
        our_schedule.step(metric)
        their_schedule.step(metric)
        assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups], f"step {step}"


def test_sequence_is_pytorchs():
    torch = pytest.importorskip("torch")

    def rates(module, optimizer):
        parts = [
            module.LinearLR(optimizer, 0.1, total_iters=4),
            module.CosineAnnealingLR(optimizer, T_max=10),
            module.ExponentialLR(optimizer, 0.5),
        ]
        schedule = module.SequentialLR(optimizer, parts, [4, 12])
        found = []
        for _ in range(20):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    assert rates(lr_scheduler, optimizer(groups=(0.1,))) == pytest.approx(rates(torch.optim.lr_scheduler, theirs))


def test_step_by_hand():
    of = optimizer(groups=(1.0,))
    schedule = lr_scheduler.StepLR(of, step_size=2, gamma=0.1)
    found = []
    for _ in range(5):
        found.append(of.lr)
        schedule.step()
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_warm_up_then_cosine_by_hand():
    of = optimizer(groups=(0.2,))
    parts = [lr_scheduler.LinearLR(of, 0.5, total_iters=2), lr_scheduler.CosineAnnealingLR(of, T_max=2)]
    schedule = lr_scheduler.SequentialLR(of, parts, milestones=[2])
    found = []
    for _ in range(5):
        found.append(of.lr)
        schedule.step()
    assert found == pytest.approx([0.1, 0.15, 0.2, 0.1, 0.0])


@pytest.mark.parametrize(
    "make",
    [
        lambda of: lr_scheduler.CosineAnnealingLR(of, T_max=9),
        lambda of: lr_scheduler.OneCycleLR(of, 0.3, total_steps=20),
        lambda of: lr_scheduler.LambdaLR(of, lambda step: 0.7**step),
        lambda of: lr_scheduler.SequentialLR(
            of, [lr_scheduler.LinearLR(of), lr_scheduler.StepLR(of, 2)], milestones=[3]
        ),
    ],
)
def test_state_takes_a_schedule_up_again(make):
    first = optimizer(momentum=0.9)
    schedule = make(first)
    for _ in range(6):
        schedule.step()

    second = optimizer(momentum=0.9)
    resumed = make(second)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    for _ in range(5):
        schedule.step()
        resumed.step()
        assert second.param_groups[0]["lr"] == first.param_groups[0]["lr"]
        assert second.param_groups[0]["momentum"] == first.param_groups[0]["momentum"]


def test_last_epoch_goes_on_from_the_groups():
    of = optimizer(groups=(1.0,))
    schedule = lr_scheduler.ExponentialLR(of, 0.5)
    for _ in range(3):
        schedule.step()
    again = lr_scheduler.ExponentialLR(of, 0.5, last_epoch=3)
    assert of.lr == pytest.approx(0.5**4)
    assert again.last_epoch == 4


def test_one_cycle_refuses_to_go_beyond_its_end():
    schedule = lr_scheduler.OneCycleLR(optimizer(momentum=0.9), 0.1, total_steps=3)
    for _ in range(3):
        schedule.step()
    with raises(ValueError, "step", "4", "total_steps", "3"):
        schedule.step()


BAD = {
    "optimizer": (lambda: lr_scheduler.StepLR(nn.Linear(2, 2), 3), TypeError, ("optimizer", "Linear")),
    "step_size": (lambda: lr_scheduler.StepLR(optimizer(), 0), ValueError, ("step_size", "0")),
    "gamma": (lambda: lr_scheduler.ExponentialLR(optimizer(), -1), ValueError, ("gamma", "-1")),
    "milestones": (
        lambda: lr_scheduler.SequentialLR(optimizer(), [], []),
        ValueError,
        ("milestones", "0"),
    ),
    "lr_lambda": (lambda: lr_scheduler.LambdaLR(optimizer(), [abs]), ValueError, ("lr_lambda", "1", "2")),
    "T_max": (lambda: lr_scheduler.CosineAnnealingLR(optimizer(), 2.5), TypeError, ("T_max", "float", "int")),
    "total_steps": (lambda: lr_scheduler.OneCycleLR(optimizer(), 0.1), ValueError, ("total_steps",)),
    "anneal_strategy": (
        lambda: lr_scheduler.OneCycleLR(optimizer(), 0.1, 9, anneal_strategy="exp"),
        ValueError,
        ("anneal_strategy", "exp", "cos"),
    ),
    "factor": (lambda: lr_scheduler.ReduceLROnPlateau(optimizer(), factor=1.0), ValueError, ("factor", "1.0")),
    "metrics": (lambda: lr_scheduler.ReduceLROnPlateau(optimizer()).step(), TypeError, ("metrics", "None")),
    "last_epoch": (
        lambda: lr_scheduler.StepLR(optimizer(), 3, last_epoch=4),
        ValueError,
        ("last_epoch", "initial_lr"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refusals(name):
    make, error, words = BAD[name]
    with raises(error, *words):
        make()
