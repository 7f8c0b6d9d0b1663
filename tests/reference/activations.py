"""Activations: y = f(x) element by element, so dx = dy * f'(x). PReLU has a parameter; softmax mixes one
axis.

Two rules hold throughout.
- Stable for large inputs of either sign: exp() is only ever taken of numbers <= 0, so it may vanish but never
  overflows.
- NaN in, NaN out. A comparison with NaN is false, so the branches are written for NaN to fall into one that
  keeps it.

At a kink the derivative is a choice; it is PyTorch's: ReLU'(0) = 0, clamps are flat at their ends.
"""

import math

import numpy as np

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946

_erfc = np.frompyfunc(math.erfc, 1, 1)


def sigmoid_forward(x):
    """1 / (1 + exp(-x)), which is exp(x) / (1 + exp(x)) for negative x."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def sigmoid_backward(dy, x):
    y = sigmoid_forward(x)
    return dy * y * (1 - y)


def tanh_forward(x):
    return np.tanh(x)


def tanh_backward(dy, x):
    return dy * (1 - np.tanh(x) ** 2)


def relu_forward(x):
    return np.maximum(x, 0)


def relu_backward(dy, x):
    return np.where(x <= 0, 0, dy)


def relu6_forward(x):
    return np.clip(x, 0, 6)


def relu6_backward(dy, x):
    return np.where((x <= 0) | (x >= 6), 0, dy)


def leaky_relu_forward(x, negative_slope=0.01):
    return np.where(x > 0, x, negative_slope * x)


def leaky_relu_backward(dy, x, negative_slope=0.01):
    return np.where(x > 0, dy, negative_slope * dy)


def _slope_per_channel(slope, x):
    """(1,) or (c,) -> a shape that broadcasts along axis 1 of x."""
    return slope.reshape((1, -1) + (1,) * (x.ndim - 2)) if x.ndim > 1 else slope


def prelu_forward(x, slope):
    """Leaky ReLU whose slope is learnt: one for all, or one for each channel (axis 1).

    He et al., "Delving deep into rectifiers" (2015), arXiv:1502.01852.
    """
    return np.where(x > 0, x, _slope_per_channel(slope, x) * x)


def prelu_backward(dy, x, slope):
    """Returns dx, dslope. The slope takes part only where x <= 0, and there dy/dslope = x."""
    dx = np.where(x > 0, dy, _slope_per_channel(slope, x) * dy)
    dslope = np.where(x > 0, 0, x * dy)
    if slope.size == 1:
        return dx, dslope.sum().reshape(1)
    return dx, dslope.sum(axis=tuple(axis for axis in range(x.ndim) if axis != 1))


def elu_forward(x, alpha=1.0):
    """Clevert et al., "Fast and accurate deep network learning by exponential linear units" (2015),
    arXiv:1511.07289.
    """
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def elu_backward(dy, x, alpha=1.0):
    return np.where(x > 0, dy, dy * alpha * np.exp(np.minimum(x, 0)))


def selu_forward(x):
    """ELU whose two constants make mean 0 and variance 1 a fixed point. Klambauer et al. (2017),
    arXiv:1706.02515.
    """
    return SELU_SCALE * elu_forward(x, SELU_ALPHA)


def selu_backward(dy, x):
    return SELU_SCALE * elu_backward(dy, x, SELU_ALPHA)


def softplus_forward(x, beta=1.0, threshold=20.0):
    """log(1 + exp(beta*x)) / beta, and x itself where beta*x > threshold: there they agree to rounding."""
    z = beta * x
    return np.where(z > threshold, x, (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta)


def softplus_backward(dy, x, beta=1.0, threshold=20.0):
    z = beta * x
    return np.where(z > threshold, dy, dy * sigmoid_forward(z))


def mish_forward(x):
    """x * tanh(softplus(x)). Misra, "Mish: a self regularized non-monotonic activation function" (2019),
    arXiv:1908.08681.
    """
    return x * np.tanh(softplus_forward(x))


def mish_backward(dy, x):
    t = np.tanh(softplus_forward(x))
    return dy * (t + x * (1 - t * t) * sigmoid_forward(x))


def silu_forward(x):
    """x * sigmoid(x), also called swish. Ramachandran et al. (2017), arXiv:1710.05941."""
    return x * sigmoid_forward(x)


def silu_backward(dy, x):
    s = sigmoid_forward(x)
    return dy * s * (1 + x * (1 - s))


def gelu_forward(x, approximate="none"):
    """x * P(Z <= x) for a standard normal Z, or its tanh approximation. Hendrycks and Gimpel (2016),
    arXiv:1606.08415.
    """
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * _normal_cdf(x)


def gelu_backward(dy, x, approximate="none"):
    if approximate == "tanh":
        t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner)
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return dy * (_normal_cdf(x) + x * density)


def _normal_cdf(x):
    """erfc keeps its digits in the lower tail, where 1 + erf cancels."""
    return 0.5 * _erfc(-x / math.sqrt(2)).astype(x.dtype)


def hardsigmoid_forward(x):
    return np.clip(x + 3, 0, 6) / 6


def hardsigmoid_backward(dy, x):
    return np.where((x <= -3) | (x >= 3), 0, dy / 6)


def hardswish_forward(x):
    """x * hardsigmoid(x). Howard et al., "Searching for MobileNetV3" (2019), arXiv:1905.02244."""
    return x * np.clip(x + 3, 0, 6) / 6


def hardswish_backward(dy, x):
    return np.where(x <= -3, 0, np.where(x >= 3, dy, dy * (x / 3 + 0.5)))


def softmax_forward(x, dim):
    """exp(x) / sum exp(x) along `dim`. Subtracting the maximum changes nothing but the overflow."""
    if x.size == 0:
        return np.zeros_like(x)
    e = np.exp(x - x.max(axis=dim, keepdims=True))
    return e / e.sum(axis=dim, keepdims=True)


def softmax_backward(dy, x, dim):
    """dy_i/dx_j = y_i * (1[i = j] - y_j)."""
    y = softmax_forward(x, dim)
    return y * (dy - (dy * y).sum(axis=dim, keepdims=True))


def log_softmax_forward(x, dim):
    """x - log sum exp(x), never log(softmax(x)): softmax may vanish where its logarithm is an ordinary
    number.
    """
    if x.size == 0:
        return np.zeros_like(x)
    shifted = x - x.max(axis=dim, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True))


def log_softmax_backward(dy, x, dim):
    """dy_i/dx_j = 1[i = j] - softmax_j."""
    return dy - softmax_forward(x, dim) * dy.sum(axis=dim, keepdims=True)
