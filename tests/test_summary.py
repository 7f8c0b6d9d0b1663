"""The table of layers: counts by hand, and what it leaves alone."""

import subprocess
import sys

import pytest

import pycnn
from helpers import normal, raises
from pycnn import functional as F
from pycnn import nn


def by_name(model, shape):
    return {row.name: row for row in pycnn.summary(model, shape).rows}


# layer, input shape, output shape, parameters, MACs
COUNTS = {
    "convolution": (nn.Conv2d(3, 8, 5, padding=2), (2, 3, 10, 12), (2, 8, 10, 12), 3 * 8 * 25 + 8, 25 * 3 * 8 * 120),
    "stride, no bias": (nn.Conv2d(4, 6, 3, stride=2, bias=False), (1, 4, 9, 9), (1, 6, 4, 4), 216, 9 * 4 * 6 * 16),
    "groups": (nn.Conv2d(8, 8, 3, groups=4, padding=1), (1, 8, 5, 5), (1, 8, 5, 5), 152, 9 * 8 * 8 // 4 * 25),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8, bias=False), (1, 8, 5, 5), (1, 8, 3, 3), 72, 9 * 8 * 9),
    "transposed": (nn.ConvTranspose2d(3, 5, 2, stride=2), (1, 3, 4, 4), (1, 5, 8, 8), 65, 4 * 3 * 5 * 16),
    "linear": (nn.Linear(7, 5), (4, 7), (4, 5), 40, 35),
    "linear of rows": (nn.Linear(7, 5), (4, 3, 2, 7), (4, 3, 2, 5), 40, 35 * 6),
    "batch norm": (nn.BatchNorm2d(6), (1, 6, 1, 1), (1, 6, 1, 1), 12, 0),
    "pooling": (nn.MaxPool2d(2), (1, 6, 4, 4), (1, 6, 2, 2), 0, 0),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    layer, shape, output_shape, parameters, macs = COUNTS[name]
    found = pycnn.summary(layer, shape)
    [row] = found.rows
    assert row.output_shape == str(output_shape)
    assert row.parameters == found.parameters == layer.num_parameters == parameters
    assert row.macs == found.macs == layer.macs(shape) == macs
    assert row.type == type(layer).__name__


def test_the_batch_does_not_count():
    layer = nn.Conv2d(3, 8, 3)
    assert layer.macs((3, 9, 9)) == layer.macs((1, 3, 9, 9)) == layer.macs((16, 3, 9, 9)) == layer.macs((0, 3, 9, 9))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.twice = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.scale = nn.Parameter(normal((4, 1, 1)))

    def forward(self, x):
        return F.relu(self.twice(self.twice(self.conv(x))) * self.scale + x)


def test_layers_in_a_network_of_any_form():
    found = pycnn.summary(Residual(), (4, 6, 6))
    names = [row.name for row in found.rows]
    assert names == ["conv", "twice.0", "twice.1", "twice.0", "twice.1", "Residual"]
    assert [row.parameters for row in found.rows] == [148, 20, 0, 0, 0, 4], "each parameter where it first appears"
    assert found.parameters == 172
    assert found.macs == 36 * (9 * 16 + 2 * 16)


def test_frozen_parameters_are_told_apart():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    found = pycnn.summary(model, (3,))
    assert (found.parameters, found.trainable_parameters) == (26, 10)
    assert "26 (16 of them frozen)" in str(found)


def test_the_table_says_it():
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 32 * 32, 10))
    lines = str(pycnn.summary(model, (1, 3, 32, 32))).splitlines()
    assert lines[0] == "Sequential"
    assert [line.split() for line in lines if line.startswith("0 ")] == [
        ["0", "Conv2d", "(1,", "64,", "32,", "32)", "1,792", "1,769,472"]
    ]
    assert lines[-2] == "parameters: 657,162"
    assert lines[-1] == "MACs per image: 2,424,832"
    assert len({len(line) for line in lines[1:-2]}) == 1, "columns line up"


def test_nothing_is_changed():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    model[2].eval()
    before = model.state_dict()
    pycnn.summary(model.double(), (1, 1, 3, 3))  # one value a channel, which training would refuse
    assert [m.training for m in model.modules()] == [True, True, True, False]
    for name, value in model.state_dict().items():
        assert (value == before[name]).all()


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, x, y):
            return self.left(x) + self.right(y)

    assert pycnn.summary(Two(), [(1, 3), (1, 5)]).macs == 32


def test_the_name_is_a_function_whatever_came_before(tmp_path):
    """A module of the same name must not take its place."""
    code = "import pycnn; layer = pycnn.nn.Linear(2, 3); layer.macs((2,)); print(pycnn.summary(layer, (2,)).macs)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout == "6\n"


def test_refusals():
    layer = nn.Conv2d(3, 8, 3)
    with raises(TypeError, "model", "function"):
        pycnn.summary(lambda x: x, (3, 8, 8))
    with raises(TypeError, "input_shape", "8"):
        pycnn.summary(layer, 8)
    with raises(ValueError, "input_shape", "-8"):
        pycnn.summary(layer, (3, -8, 8))
    with raises(ValueError, "x", "4", "3"):
        pycnn.summary(layer, (4, 8, 8))
