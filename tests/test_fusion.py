"""What the engine fuses in training gives the gradients of the plain graph, which float64 computes."""

import numpy as np
import pytest

import pycnn
from helpers import normal
from pycnn import functional as F
from pycnn import nn


class Meeting(nn.Module):
    """x is read by several operations, whose gradients add up where they lie."""

    def __init__(self, make, channels=8):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.branches = nn.Sequential(*[make(channels) for _ in range(2)])
        self.last = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        x = F.relu(self.first(x))
        left, right = self.branches.children()
        return self.last(x)[:, :, :2, :2] + (left(x) + right(x) * 2.0)[:, :, :2, :2]


class Residual(nn.Module):
    def __init__(self, act, channels=8):
        super().__init__()
        self.act = act
        self.conv, self.bn = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.down, self.bn2 = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.act(self.bn(self.conv(x)) + x) + self.act(self.bn2(self.down(x)) + self.bn(self.conv(x)))


def layers(*modules):
    return lambda: nn.Sequential(*[m() for m in modules])


def leaky(x):
    return F.leaky_relu(x, 0.2)


NETWORKS = {
    "meeting 3x3": lambda: Meeting(lambda c: nn.Conv2d(c, c, 3, padding=1)),
    "meeting 1x1 of stride 2": lambda: Meeting(lambda c: nn.Conv2d(c, c, 1, stride=2)),
    "meeting 3x3 of stride 2": lambda: Meeting(lambda c: nn.Conv2d(c, c, 3, stride=2, padding=1)),
    "meeting depthwise": lambda: Meeting(lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c)),
    "meeting wide depthwise": lambda: Meeting(lambda c: nn.Conv2d(c, c, 5, padding=2, groups=c), 40),
    "meeting dilated depthwise": lambda: Meeting(lambda c: nn.Conv2d(c, c, 3, padding=2, dilation=2, groups=c), 20),
    "meeting grouped": lambda: Meeting(lambda c: nn.Conv2d(c, c, 3, padding=1, groups=2)),
    "meeting transposed": lambda: Meeting(lambda c: nn.ConvTranspose2d(c, c, 2, stride=2)),
    "meeting pools": lambda: Meeting(lambda c: nn.MaxPool2d(2)),
    "residual relu": lambda: Residual(F.relu),
    "residual relu6": lambda: Residual(F.relu6),
    "residual leaky": lambda: Residual(leaky, 20),
    "residual silu": lambda: Residual(F.silu),
    "conv relu": layers(lambda: nn.Conv2d(8, 12, 3), nn.ReLU, lambda: nn.Conv2d(12, 8, 3, stride=2), nn.ReLU6),
    "conv leaky": layers(lambda: nn.Conv2d(8, 12, 3), lambda: nn.LeakyReLU(0.1), lambda: nn.ConvTranspose2d(12, 8, 2),
                         nn.ReLU),
    "linear relu": layers(nn.Flatten, lambda: nn.Linear(8 * 12 * 10, 30), nn.ReLU, lambda: nn.Linear(30, 5), nn.ReLU),
    "tanh and dropout": layers(lambda: nn.Conv2d(8, 8, 3), nn.Tanh, lambda: nn.Dropout(0.0), nn.Sigmoid),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients(name, training):
    pycnn.manual_seed(0)
    model = NETWORKS[name]().train(training)
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 8)
    x = normal((3, channels, 12, 10))
    y = model(x)
    dy = normal(y.shape, seed=1)
    got = {}
    for repeat in range(2):  # a second backward after one forward: nothing that is read was overwritten
        model.zero_grad()
        dx = model.backward(dy)
        got[repeat] = {"dx": dx, **{key: p.grad.copy() for key, p in model.named_parameters()}}
    model.double()
    exact = model(x.astype(np.float64))
    model.zero_grad()
    wanted = {"dx": model.backward(dy.astype(np.float64)), **{key: p.grad for key, p in model.named_parameters()}}
    assert np.linalg.norm(y - exact) <= 1e-5 * np.linalg.norm(exact)
    scale = max(np.abs(value).max() for value in wanted.values())
    for key, want in wanted.items():
        assert np.abs(got[0][key] - want).max() <= 2e-5 * scale, key
        assert np.array_equal(got[0][key], got[1][key]), key
