"""Activation layers: any shape in, the same shape out. Formulas and sources stand in `pycnn.functional`."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn._arguments import choice, integer, real
from pycnn.nn.module import Module
from pycnn.parameter import Parameter


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Any) -> Any:
        return F.sigmoid(x)


class Tanh(Module):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))."""

    def forward(self, x: Any) -> Any:
        return F.tanh(x)


class _Rectifier(Module):
    def __init__(self, inplace: bool = False) -> None:
        """inplace: accepted for PyTorch's sake; memory is planned by the engine either way."""
        super().__init__()
        self.inplace = bool(inplace)


class ReLU(_Rectifier):
    """max(x, 0); NaN stays NaN."""

    def forward(self, x: Any) -> Any:
        return F.relu(x)


class ReLU6(_Rectifier):
    """min(max(x, 0), 6)."""

    def forward(self, x: Any) -> Any:
        return F.relu6(x)


class SiLU(_Rectifier):
    """x sigmoid(x)."""

    def forward(self, x: Any) -> Any:
        return F.silu(x)


class Mish(_Rectifier):
    """x tanh(softplus(x))."""

    def forward(self, x: Any) -> Any:
        return F.mish(x)


class SELU(_Rectifier):
    """ELU scaled to keep mean 0 and variance 1."""

    def forward(self, x: Any) -> Any:
        return F.selu(x)


class Hardswish(_Rectifier):
    """x relu6(x + 3) / 6."""

    def forward(self, x: Any) -> Any:
        return F.hardswish(x)


class Hardsigmoid(_Rectifier):
    """relu6(x + 3) / 6."""

    def forward(self, x: Any) -> Any:
        return F.hardsigmoid(x)


class LeakyReLU(Module):
    """x above 0, negative_slope x below."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = real(negative_slope, "negative_slope")
        self.inplace = bool(inplace)

    def forward(self, x: Any) -> Any:
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """x above 0, weight x below, with a trained weight: Parameter (num_parameters), one or one per channel."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        count = integer(num_parameters, "num_parameters", 1)
        self.weight = Parameter(np.full(count, real(init, "init"), np.float32))

    def forward(self, x: Any) -> Any:
        return F.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.weight.size}"


class Softplus(Module):
    """log(1 + exp(beta x)) / beta; x itself where beta x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = real(beta, "beta")
        self.threshold = real(threshold, "threshold")

    def forward(self, x: Any) -> Any:
        return F.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class GELU(Module):
    """x Phi(x), exactly, or by the tanh approximation with approximate='tanh'."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = choice(approximate, "approximate", ("none", "tanh"))

    def forward(self, x: Any) -> Any:
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class ELU(Module):
    """x above 0, alpha (exp(x) - 1) below."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = real(alpha, "alpha")
        self.inplace = bool(inplace)

    def forward(self, x: Any) -> Any:
        return F.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softmax(Module):
    """exp(x) / sum exp(x) along dim."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = integer(dim, "dim")

    def forward(self, x: Any) -> Any:
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """log(softmax(x)) along dim."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = integer(dim, "dim")

    def forward(self, x: Any) -> Any:
        return F.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"
