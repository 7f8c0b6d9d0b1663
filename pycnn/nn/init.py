"""Initial values, in place, with the names and formulas of `torch.nn.init`.

Numbers come from the engine's counter-based generator: the same after the same `pycnn.manual_seed`, on any machine and
any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pycnn import random
from pycnn._arguments import choice, real
from pycnn._core import fill_normal, fill_uniform
from pycnn.parameter import Parameter

_skipping: ContextVar[bool] = ContextVar("_skipping", default=False)


@contextmanager
def skipped() -> Iterator[None]:
    """Layers made inside leave their parameters at zero, for a network that draws them itself."""
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def is_skipped() -> bool:
    return _skipping.get()


def _check(parameter: Any) -> Parameter:
    if not isinstance(parameter, Parameter):
        raise TypeError(f"parameter: got {type(parameter).__name__}, expected pycnn.nn.Parameter")
    return parameter


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity shrinks the standard deviation; for leaky_relu, param is its slope."""
    gains = {"linear": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0), "selu": 0.75}
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1.0 + (0.01 if param is None else param) ** 2))
    return gains[choice(nonlinearity, "nonlinearity", tuple(gains))]


def fans(parameter: Parameter) -> tuple[int, int]:
    """(fan_in, fan_out) of weights (out, in, ...): sources that one result reads, results that one source reaches."""
    shape = _check(parameter).shape
    if len(shape) < 2:
        raise ValueError(f"parameter: got shape {shape}, expected at least 2 dimensions")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def uniform_(parameter: Parameter, a: float = 0.0, b: float = 1.0) -> Parameter:
    """Uniform in [a, b)."""
    fill_uniform(_check(parameter).data, real(a, "a"), real(b, "b"), *random.next_stream())
    return parameter


def normal_(parameter: Parameter, mean: float = 0.0, std: float = 1.0) -> Parameter:
    """Normal with this mean and standard deviation."""
    fill_normal(_check(parameter).data, real(mean, "mean"), real(std, "std", 0.0), *random.next_stream())
    return parameter


def constant_(parameter: Parameter, value: float) -> Parameter:
    _check(parameter).data[...] = value
    return parameter


def zeros_(parameter: Parameter) -> Parameter:
    return constant_(parameter, 0.0)


def ones_(parameter: Parameter) -> Parameter:
    return constant_(parameter, 1.0)


def _kaiming_std(parameter: Parameter, a: float, mode: str, nonlinearity: str) -> float:
    fan_in, fan_out = fans(parameter)
    fan = fan_in if choice(mode, "mode", ("fan_in", "fan_out")) == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_uniform_(
    parameter: Parameter, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Parameter:
    """Uniform, with the variance that keeps activations' variance through rectifiers of slope a. He et al., 2015."""
    bound = math.sqrt(3.0) * _kaiming_std(parameter, a, mode, nonlinearity)
    return uniform_(parameter, -bound, bound)


def kaiming_normal_(
    parameter: Parameter, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Parameter:
    """Normal, with the variance that keeps activations' variance through rectifiers of slope a. He et al., 2015."""
    return normal_(parameter, 0.0, _kaiming_std(parameter, a, mode, nonlinearity))


def xavier_uniform_(parameter: Parameter, gain: float = 1.0) -> Parameter:
    """Uniform, variance 2 gain^2 / (fan_in + fan_out). Glorot and Bengio, 2010."""
    bound = gain * math.sqrt(6.0 / max(sum(fans(parameter)), 1))
    return uniform_(parameter, -bound, bound)


def xavier_normal_(parameter: Parameter, gain: float = 1.0) -> Parameter:
    """Normal, variance 2 gain^2 / (fan_in + fan_out). Glorot and Bengio, 2010."""
    return normal_(parameter, 0.0, gain * math.sqrt(2.0 / max(sum(fans(parameter)), 1)))
