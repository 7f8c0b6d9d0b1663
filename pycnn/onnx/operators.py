"""ONNX operators on tensors of a network that is being traced: each by operations of `pycnn.functional`.

A function takes the node and its sources in the file's order: tensors, parameters, arrays, None where one is left out.
It returns a tensor, or a list of tensors for a node of several results, and raises ValueError, naming the source or the
attribute, for what pycnn cannot compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.onnx import known
from pycnn.onnx.model_file import Node
from pycnn.onnx.movement import OPERATORS as MOVEMENT
from pycnn.onnx.movement import permute
from pycnn.onnx.windows import OPERATORS as WINDOWS
from pycnn.parameter import Array, Parameter
from pycnn.tracing import Tensor

_HUGE = 3.0e38  # limits of Clip beyond this are none


def _number(value: Any) -> float | None:
    """The number that a constant of one element stands for, or None."""
    if isinstance(value, np.ndarray) and value.size == 1:
        return float(value.reshape(()))
    return None


def _scalar(node: Node, value: Any, name: str, default: float | None = None) -> float:
    """A number that older versions have as an attribute and newer ones as a source, which must be constant."""
    if value is None:
        value = np.asarray(node.attributes.get(name, default))
    number = _number(value)
    if number is None:
        raise ValueError(f"{name}: got a tensor, expected a constant number")
    return number


# ---- linear maps -----------------------------------------------------------------------------------------------------


def _matmul(node: Node, x: Any, weight: Any) -> Tensor:
    if not isinstance(weight, (Parameter, np.ndarray)) or not isinstance(x, Tensor) or weight.ndim != 2:
        raise ValueError("A, B: expected a computed tensor and a constant matrix")
    return F.linear(x, weight)


def _gemm(node: Node, x: Any, weight: Any, bias: Any = None) -> Tensor:
    if not isinstance(weight, (Parameter, np.ndarray)) or not isinstance(x, Tensor):
        raise ValueError("A, B: expected a computed tensor and a constant matrix")
    if node.attributes.get("transA", 0):
        x = permute(x, (1, 0))
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    joined = alpha == beta == 1.0 and isinstance(bias, (Parameter, np.ndarray)) and bias.shape == weight.shape[:1]
    y = F.linear(x, weight, bias if joined else None)
    if alpha != 1.0:
        y = y * alpha
    if bias is None or joined or beta == 0.0:
        return y
    return _add(node, y, bias if beta == 1.0 else _multiply(node, bias, np.array(beta)))


# ---- normalization ---------------------------------------------------------------------------------------------------


def _as_image(x: Tensor) -> Tensor:
    """(n, c, ...) as (n, c, h, w): statistics per channel do not ask how many axes there are."""
    if x.ndim == 4:
        return x
    if x.ndim < 2:
        raise ValueError(f"X: got shape {x.shape}, expected (n, c, ...)")
    return x.reshape((*x.shape[:2], math.prod(x.shape[2:]), 1))


def _batch_norm(
    node: Node, x: Any, scale: Any, bias: Any, mean: Any, var: Any, counter: Any = None, *, training: bool
) -> Tensor:
    attributes = node.attributes
    if attributes.get("spatial", 1) != 1:
        raise ValueError("spatial: got 0, expected statistics per channel")
    trained = training or bool(attributes.get("training_mode", 0))
    momentum = 1.0 - attributes.get("momentum", 0.9)
    if trained and not training:  # the file asks for the batch's own statistics, and to keep none
        mean = var = counter = None
    y = F.batch_norm(
        _as_image(x), mean, var, scale, bias, trained, momentum, attributes.get("epsilon", 1e-5), counter
    )
    return y if x.ndim == 4 else y.reshape(x.shape)


def _instance_norm(node: Node, x: Any, scale: Any, bias: Any) -> Tensor:
    y = F.instance_norm(_as_image(x), None, None, scale, bias, eps=node.attributes.get("epsilon", 1e-5))
    return y if x.ndim == 4 else y.reshape(x.shape)


def _layer_norm(node: Node, x: Any, scale: Any, bias: Any = None) -> Tensor:
    axis = node.attributes.get("axis", -1)
    shape = x.shape[axis:]
    eps = node.attributes.get("epsilon", 1e-5)
    if scale.shape == shape and (bias is None or bias.shape == shape):
        return F.layer_norm(x, shape, scale, bias, eps)
    y = _multiply(node, F.layer_norm(x, shape, eps=eps), scale)
    return y if bias is None else _add(node, y, bias)


def _group_norm(node: Node, x: Any, scale: Any, bias: Any) -> Tensor:
    groups, eps = node.attributes["num_groups"], node.attributes.get("epsilon", 1e-5)
    if scale.shape == (x.shape[1],):
        return F.group_norm(x, groups, scale, bias, eps)
    # Before version 21 there was one scale and one bias a group.
    y = F.group_norm(x, groups, eps=eps).reshape((x.shape[0], groups, -(-x.shape[1] // groups), math.prod(x.shape[2:])))
    per_group = (1, groups, 1, 1)
    y = y * x.tracer.reshape(scale, per_group) + x.tracer.reshape(bias, per_group)
    return y.reshape(x.shape)


# ---- activations -----------------------------------------------------------------------------------------------------


def _clamp(x: Tensor, least: float, most: float) -> Tensor:
    if least < -_HUGE:
        least = -math.inf
    if most > _HUGE:
        most = math.inf
    if least > most:
        least = most
    if (least, most) == (0.0, 6.0):
        return F.relu6(x)
    if math.isinf(least) and math.isinf(most):
        return x
    if math.isinf(most):
        return F.relu(x) if least == 0.0 else F.relu(x - least) + least
    if math.isinf(least):
        return most - F.relu(most - x)
    if least == most:
        return F.relu6(x) * 0.0 + least
    scale = (most - least) / 6.0
    return F.relu6((x - least) * (1.0 / scale)) * scale + least


def _clip(node: Node, x: Any, least: Any = None, most: Any = None) -> Tensor:
    return _clamp(x, _scalar(node, least, "min", -math.inf), _scalar(node, most, "max", math.inf))


def _hard_sigmoid(node: Node, x: Any) -> Tensor:
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return _clamp(x * alpha + beta, 0.0, 1.0)


def _hard_swish(node: Node, x: Any) -> Tensor:
    return F.hardswish(x)


def _prelu(node: Node, x: Any, slope: Any) -> Tensor:
    trailing = node.attributes.get("trailing_axes", 0)  # after the slope's own axis; see roles.py
    if slope.shape == (1,) or (slope.ndim == 1 and x.ndim == trailing + 2 and slope.shape[0] == x.shape[1]):
        return F.prelu(x, slope)
    if trailing:
        raise ValueError(f"slope: got {slope.shape[0]} numbers for shape {x.shape}, expected one a channel")
    return F.relu(x) - F.relu(-x) * slope


def _selu(node: Node, x: Any) -> Tensor:
    alpha = node.attributes.get("alpha", 1.67326319217681884765625)
    gamma = node.attributes.get("gamma", 1.05070102214813232421875)
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.050701) < 1e-6:
        return F.selu(x)
    return F.elu(x, alpha) * gamma


def _celu(node: Node, x: Any) -> Tensor:
    alpha = node.attributes.get("alpha", 1.0)
    return F.elu(x * (1.0 / alpha)) * alpha


def _softmax(function: Callable[..., Any]) -> Callable[..., Tensor]:
    def run(node: Node, x: Any) -> Tensor:
        if node.opset >= 13:
            result: Tensor = function(x, node.attributes.get("axis", -1))
            return result
        # Older versions take the axes from `axis` on as one.
        axis = node.attributes.get("axis", 1) % max(x.ndim, 1)
        if math.prod(x.shape[axis + 1 :]) == 1:
            return function(x, axis)
        flat = x.reshape((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
        result = function(flat, 1)
        return result.reshape(x.shape)

    return run


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def _operands(node: Node, left: Any, right: Any) -> None:
    if "axis" in node.attributes:
        raise ValueError("axis: got one, which aligns operands as only versions before 7 do")


def _add(node: Node, left: Any, right: Any) -> Tensor:
    _operands(node, left, right)
    for x, other in ((left, right), (right, left)):
        number = _number(other)
        if number is not None and isinstance(x, Tensor) and other.ndim <= x.ndim:
            return x + number
    return left + right if isinstance(left, Tensor) else right + left


def _subtract(node: Node, left: Any, right: Any) -> Tensor:
    _operands(node, left, right)
    if isinstance(left, Tensor):
        number = _number(right)
        return left - (number if number is not None and right.ndim <= left.ndim else right)
    return _add(node, -right, left)


def _multiply(node: Node, left: Any, right: Any) -> Tensor:
    _operands(node, left, right)
    for x, other in ((left, right), (right, left)):
        number = _number(other)
        if number is not None and isinstance(x, Tensor) and other.ndim <= x.ndim:
            return x * number
    return left * right if isinstance(left, Tensor) else right * left


def _divide(node: Node, left: Any, right: Any) -> Tensor:
    if not isinstance(left, Tensor) or not isinstance(right, np.ndarray):
        raise ValueError("B: got a computed tensor, expected constants to divide by")
    if np.any(right == 0):
        raise ValueError("B: got zero, expected other numbers to divide by")
    return _multiply(node, left, 1.0 / right.astype(np.float64))


def _power(node: Node, x: Any, exponent: Any) -> Tensor:
    number = _number(exponent)
    if number not in (1.0, 2.0, 3.0, 4.0):
        raise ValueError(f"Y: got {'a tensor' if number is None else number}, expected a constant 1, 2, 3 or 4")
    y = x
    for _ in range(int(number) - 1):
        y = y * x
    return y


def _sum(node: Node, *sources: Any) -> Tensor:
    total = sources[0]
    for source in sources[1:]:
        total = _add(node, total, source)
    return _same(node, total)


def _mean(node: Node, *sources: Any) -> Tensor:
    return _sum(node, *sources) * (1.0 / len(sources))


def _extreme(largest: bool) -> Callable[..., Tensor]:
    def run(node: Node, *sources: Any) -> Tensor:
        tensors = [s for s in sources if isinstance(s, Tensor)]
        numbers = [_number(s) for s in sources if not isinstance(s, Tensor)]
        if len(tensors) != 1 or None in numbers:
            raise ValueError("data_0, ...: expected one computed tensor and constant numbers")
        limits = [number for number in numbers if number is not None]
        if not limits:
            return _same(node, tensors[0])
        limit = max(limits) if largest else min(limits)
        return _clamp(tensors[0], limit, math.inf) if largest else _clamp(tensors[0], -math.inf, limit)

    return run


def _same(node: Node, x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise ValueError("expected a computed tensor")
    return x


def _cast(node: Node, x: Any) -> Tensor:
    if node.attributes["to"] not in known.FLOAT_TYPES:
        raise ValueError(f"to: got type number {node.attributes['to']}, expected a type of floats")
    return _same(node, x)


def _dropout(node: Node, x: Any, ratio: Any = None, mode: Array | None = None, *, training: bool) -> Tensor:
    if len(node.results) > 1 and node.results[1]:
        raise ValueError("mask: it is wanted as a result, expected only the output")
    if not training and not (mode is not None and np.any(mode)):
        return _same(node, x)
    return F.dropout(x, _scalar(node, ratio, "ratio", 0.5), True)


def _reduce(node: Node, x: Any, source: Any = None) -> Tensor:
    """ReduceMean, ReduceSum and ReduceSumSquare over neighbouring axes, as average pooling."""
    if source is not None and np.size(source) == 0:
        source = None
    if node.attributes.get("noop_with_empty_axes", 0) and source is None and "axes" not in node.attributes:
        return _same(node, x)
    axes = known.axes_of(node, source, x.ndim)
    if axes != list(range(axes[0], axes[-1] + 1)):
        raise ValueError(f"axes: got {axes}, expected axes beside each other")
    count = math.prod(x.shape[axes[0] : axes[-1] + 1])
    kept = [1 if i in axes else size for i, size in enumerate(x.shape)]
    result = kept if node.attributes.get("keepdims", 1) else [kept[i] for i in range(x.ndim) if i not in axes]
    if x.ndim == 4 and axes == [2, 3]:
        y = F.adaptive_avg_pool2d(x, 1)
    else:
        rows = (math.prod(x.shape[: axes[0]]), 1, count, math.prod(x.shape[axes[-1] + 1 :]))
        y = F.adaptive_avg_pool2d(x.reshape(rows), (1, None))
    y = y.reshape(tuple(result))
    return y if node.operator == "ReduceMean" else y * float(count)


def _activation(function: Callable[..., Any], **attributes: Any) -> Callable[..., Tensor]:
    """An activation whose attributes, by their names in the file, have these defaults and this order."""

    def run(node: Node, x: Any) -> Tensor:
        values = [node.attributes.get(name, default) for name, default in attributes.items()]
        result: Tensor = function(_same(node, x), *values)
        return result

    return run


OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": lambda node, x: F.relu(x) + F.relu(-x),
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Celu": _celu,
    "Clip": _clip,
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": _activation(F.elu, alpha=1.0),
    "Gelu": _activation(F.gelu, approximate="none"),
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": _same,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _activation(F.leaky_relu, alpha=0.01),
    "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": _matmul,
    "Max": _extreme(True),
    "Mean": _mean,
    "Min": _extreme(False),
    "Mish": _activation(F.mish),
    "Mul": _multiply,
    "Neg": lambda node, x: -_same(node, x),
    "PRelu": _prelu,
    "Pow": _power,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "Relu": _activation(F.relu),
    "Selu": _selu,
    "Sigmoid": _activation(F.sigmoid),
    "Softmax": _softmax(F.softmax),
    "Softplus": _activation(F.softplus, beta=1.0, threshold=20.0),  # those two are set by fusion.py
    "Sub": _subtract,
    "Sum": _sum,
    "Tanh": _activation(F.tanh),
    **WINDOWS,
    **MOVEMENT,
}
OF_MODE = ("BatchNormalization", "Dropout")  # these take `training`
