"""Initial values: their distribution, their scale, and that the seed decides them."""

import math

import numpy as np
import pytest

import pycnn
from helpers import raises
from pycnn import nn
from pycnn.nn import init

SHAPE = (64, 32, 5, 3)  # fan_in 480, fan_out 960
FAN_IN, FAN_OUT = 32 * 15, 64 * 15


def filled(function, *args, **kwargs):
    pycnn.manual_seed(11)
    parameter = nn.Parameter(np.full(SHAPE, np.nan))
    assert function(parameter, *args, **kwargs) is parameter
    return parameter.data.astype(np.float64).ravel()


# function, arguments, the standard deviation that the paper's formula gives
SCALES = [
    (init.kaiming_uniform_, {}, math.sqrt(2 / FAN_IN)),
    (init.kaiming_uniform_, {"a": math.sqrt(5)}, math.sqrt(2 / (6 * FAN_IN))),
    (init.kaiming_uniform_, {"mode": "fan_out", "nonlinearity": "relu"}, math.sqrt(2 / FAN_OUT)),
    (init.kaiming_normal_, {}, math.sqrt(2 / FAN_IN)),
    (init.kaiming_normal_, {"mode": "fan_out", "nonlinearity": "linear"}, math.sqrt(1 / FAN_OUT)),
    (init.xavier_uniform_, {}, math.sqrt(2 / (FAN_IN + FAN_OUT))),
    (init.xavier_uniform_, {"gain": 3.0}, 3 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
    (init.xavier_normal_, {}, math.sqrt(2 / (FAN_IN + FAN_OUT))),
]


@pytest.mark.parametrize(("function", "options", "std"), SCALES)
def test_scale_and_form(function, options, std):
    """30,720 numbers: mean and deviation to a few standard errors, and the fourth moment tells uniform from normal."""
    values = filled(function, **options) / std
    assert abs(values.mean()) < 4 / math.sqrt(values.size)
    assert abs(values.std() - 1) < 0.02
    kurtosis = (values**4).mean()
    if "uniform" in function.__name__:
        assert abs(values).max() <= math.sqrt(3) * (1 + 1e-6)
        assert abs(kurtosis - 1.8) < 0.05
    else:
        assert abs(values).max() > 3.5
        assert abs(kurtosis - 3) < 0.2


def test_plain_distributions():
    uniform = filled(init.uniform_, -2.0, 5.0)
    assert uniform.min() >= -2 and uniform.max() < 5
    assert abs(uniform.mean() - 1.5) < 0.05
    normal = filled(init.normal_, 3.0, 0.5)
    assert abs(normal.mean() - 3) < 0.02 and abs(normal.std() - 0.5) < 0.01
    assert (filled(init.constant_, 0.25) == 0.25).all()
    assert not filled(init.zeros_).any() and (filled(init.ones_) == 1).all()


def test_the_seed_decides():
    def weights(seed):
        pycnn.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 2), nn.Linear(5, 6))
        return [p.data.copy() for p in model.parameters()]

    first, again, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_layers_start_as_pytorchs():
    """Weights and bias uniform in +-1 / sqrt(fan_in)."""
    pycnn.manual_seed(5)
    for layer, fan_in in [(nn.Conv2d(16, 64, 3), 144), (nn.Conv2d(16, 64, 3, groups=4), 36), (nn.Linear(50, 400), 50)]:
        bound = 1 / math.sqrt(fan_in)
        for values in (layer.weight.data, layer.bias.data):
            assert 0.9 * bound < abs(values).max() <= bound * (1 + 1e-6)


def test_refusals():
    weight = nn.Parameter(np.zeros((2, 3)))
    with raises(TypeError, "parameter", "ndarray"):
        init.normal_(np.zeros(3))
    with raises(ValueError, "parameter", "(3,)", "2"):
        init.kaiming_normal_(nn.Parameter(np.zeros(3)))
    with raises(ValueError, "mode", "fan", "fan_in"):
        init.kaiming_uniform_(weight, mode="fan")
    with raises(ValueError, "std", "-1.0"):
        init.normal_(weight, std=-1)
    with raises(TypeError, "seed", "float"):
        pycnn.manual_seed(1.5)
    with raises(ValueError, "seed", "-1"):
        pycnn.manual_seed(-1)
