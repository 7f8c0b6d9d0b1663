"""Operations as functions, with the names and defaults of `torch.nn.functional`.

In a Module's `forward` they take symbolic tensors and record themselves. Given NumPy arrays they compute at once,
without a way back: backward belongs to layers and networks. Weights may be parameters or arrays; images are
(n, c, h, w).

All raise TypeError for a wrong type or dtype and ValueError for a wrong shape or value, naming the argument.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from pycnn import random
from pycnn._arguments import choice, integer, pair, real, sides
from pycnn.parameter import FLOAT_DTYPES, Parameter
from pycnn.tracing import Tensor, Traced, Tracer

_F = TypeVar("_F", bound=Callable[..., Any])


def _on_arrays(function: _F) -> _F:
    """Lets an operation on symbolic tensors take arrays: traces it alone, runs it, and forgets it."""

    @functools.wraps(function)
    def wrapper(x: Any, *args: Any, **kwargs: Any) -> Any:
        items = list(x) if isinstance(x, (tuple, list)) else [x]
        others = (*args, *kwargs.values())
        if any(isinstance(a, Tensor) for a in (*items, *others)):
            return function(x, *args, **kwargs)
        tracer = Tracer(_common_dtype(items))
        inputs = [tracer.input("x" if len(items) == 1 else f"x[{i}]", a.shape) for i, a in enumerate(items)]
        result = function(inputs if isinstance(x, (tuple, list)) else inputs[0], *args, **kwargs)
        traced = Traced(tracer, result, copy=False, backward=False)
        return traced.forward(tuple(items), *random.next_call())

    return wrapper  # type: ignore[return-value]


def _common_dtype(items: Sequence[Any]) -> str:
    for item in items:
        if not isinstance(item, np.ndarray):
            raise TypeError(f"x: got {type(item).__name__}, expected a NumPy array or a tensor")
        if item.dtype.newbyteorder("=") not in FLOAT_DTYPES:
            raise TypeError(f"x: got dtype {item.dtype}, expected float32 or float64")
    if not items:
        raise ValueError("x: got no arrays, expected at least one")
    return str(items[0].dtype.newbyteorder("="))


def _source(x: Any) -> tuple[Tracer, int]:
    if not isinstance(x, Tensor):
        raise TypeError(f"x: got {type(x).__name__}, expected a tensor")
    return x.tracer, x.value


# ---- convolution and linear ------------------------------------------------------------------------------------------


@_on_arrays
def conv2d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Cross-correlation. weight (oc, ic/groups, kh, kw), bias (oc); x (n, ic, h, w) -> (n, oc, oh, ow).

    padding is an int, (rows, columns), (top, left, bottom, right), 'valid' or 'same'."""
    tracer, src = _source(x)
    dilation = pair(dilation, "dilation", 1)
    stride = pair(stride, "stride", 1)
    kernel = np.shape(weight)[2:] if not isinstance(weight, Parameter) else weight.shape[2:]
    padding = resolve_padding(padding, kernel, stride, dilation)
    weights, biases = tracer.weights(weight, "weight"), tracer.weights(bias, "bias")
    return tracer.apply("conv2d", src, weights, biases, stride, padding, dilation, integer(groups, "groups", 1))


def resolve_padding(
    padding: Any, kernel: Sequence[int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Padding as (top, left, bottom, right); 'same' puts an odd pixel at the bottom and the right, as PyTorch does."""
    if isinstance(padding, str):
        if choice(padding, "padding", ("valid", "same")) == "valid":
            return 0, 0, 0, 0
        if stride != (1, 1):
            raise ValueError(f"padding: 'same' needs stride 1, got stride {stride}")
        rows, columns = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2
    return sides(padding)


@_on_arrays
def conv_transpose2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """The gradient of a convolution by its source, as an operation. weight (ic, oc/groups, kh, kw), bias (oc)."""
    tracer, src = _source(x)
    weights, biases = tracer.weights(weight, "weight"), tracer.weights(bias, "bias")
    return tracer.apply(
        "conv_transpose2d",
        src,
        weights,
        biases,
        pair(stride, "stride", 1),
        sides(padding),
        pair(output_padding, "output_padding", 0),
        pair(dilation, "dilation", 1),
        integer(groups, "groups", 1),
    )


@_on_arrays
def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """x W^T + b over the last axis: x (..., in), weight (out, in), bias (out)."""
    tracer, src = _source(x)
    return tracer.apply("linear", src, tracer.weights(weight, "weight"), tracer.weights(bias, "bias"))


# ---- normalization ---------------------------------------------------------------------------------------------------


def _norm(
    kind: str, x: Any, weight: Any, bias: Any, states: tuple[Any, ...], eps: float, momentum: float | None, **more: Any
) -> Any:
    tracer, src = _source(x)
    sources = [src, tracer.weights(weight, "weight"), tracer.weights(bias, "bias")]
    sources += [None if state is None else tracer.state(state) for state in states]
    if momentum is not None:
        real(momentum, "momentum", 0.0, 1.0)
    return tracer.apply("norm", kind, sources, real(eps, "eps", 0.0), momentum, **more)


@_on_arrays
def batch_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    num_batches_tracked: Any = None,
) -> Any:
    """Normalizes each channel over the batch (training, or without running statistics) or by running statistics.

    The biased variance normalizes; the unbiased one goes into running_var; `momentum` weighs the new value, None
    averages all batches. Ioffe and Szegedy, 2015."""
    states = (running_mean, running_var, num_batches_tracked)
    return _norm("batch_norm", x, weight, bias, states, eps, momentum, training=training)


@_on_arrays
def instance_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    num_batches_tracked: Any = None,
) -> Any:
    """Normalizes each channel of each image over its pixels. Ulyanov et al., 2016."""
    states = (running_mean, running_var, num_batches_tracked)
    return _norm("instance_norm", x, weight, bias, states, eps, momentum, training=use_input_stats)


@_on_arrays
def group_norm(x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Normalizes groups of channels of each image. Wu and He, 2018."""
    groups = integer(num_groups, "num_groups", 1)
    return _norm("group_norm", x, weight, bias, (), eps, 0.0, groups=groups)


@_on_arrays
def layer_norm(x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Normalizes over the trailing axes, whose sizes are normalized_shape. Ba et al., 2016."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"x: got shape {x.shape}, expected it to end in normalized_shape {shape}")
    return _norm("layer_norm", x, weight, bias, (), eps, 0.0, axes=len(shape))


# ---- activations -----------------------------------------------------------------------------------------------------


def _activation(kind: str, x: Any, alpha: float = 0.0, beta: float = 0.0) -> Any:
    tracer, src = _source(x)
    return tracer.apply("activation", kind, src, alpha, beta)


@_on_arrays
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return _activation("sigmoid", x)


@_on_arrays
def tanh(x: Any) -> Any:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))."""
    return _activation("tanh", x)


@_on_arrays
def relu(x: Any) -> Any:
    """max(x, 0); NaN stays NaN. Nair and Hinton, 2010."""
    return _activation("relu", x)


@_on_arrays
def relu6(x: Any) -> Any:
    """min(max(x, 0), 6). Krizhevsky, 2010."""
    return _activation("relu6", x)


@_on_arrays
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """x above 0, negative_slope x below. Maas et al., 2013."""
    return _activation("leaky_relu", x, real(negative_slope, "negative_slope"))


@_on_arrays
def prelu(x: Any, weight: Any) -> Any:
    """x above 0, weight x below; weight (1) or (c). He et al., 2015."""
    tracer, src = _source(x)
    return tracer.apply("prelu", src, tracer.weights(weight, "weight"))


@_on_arrays
def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """log(1 + exp(beta x)) / beta; x itself where beta x > threshold. Dugas et al., 2001."""
    return _activation("softplus", x, real(beta, "beta"), real(threshold, "threshold"))


@_on_arrays
def mish(x: Any) -> Any:
    """x tanh(softplus(x)). Misra, 2019."""
    return _activation("mish", x)


@_on_arrays
def silu(x: Any) -> Any:
    """x sigmoid(x). Elfwing et al., 2017; as swish, Ramachandran et al., 2017."""
    return _activation("silu", x)


@_on_arrays
def gelu(x: Any, approximate: str = "none") -> Any:
    """x Phi(x), exactly or ('tanh') by the tanh approximation. Hendrycks and Gimpel, 2016."""
    kind = choice(approximate, "approximate", ("none", "tanh"))
    return _activation("gelu" if kind == "none" else "gelu_tanh", x)


@_on_arrays
def elu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, alpha (exp(x) - 1) below. Clevert et al., 2015."""
    return _activation("elu", x, real(alpha, "alpha"))


@_on_arrays
def selu(x: Any) -> Any:
    """ELU scaled to keep mean 0 and variance 1. Klambauer et al., 2017."""
    return _activation("selu", x)


@_on_arrays
def hardswish(x: Any) -> Any:
    """x relu6(x + 3) / 6. Howard et al., 2019."""
    return _activation("hardswish", x)


@_on_arrays
def hardsigmoid(x: Any) -> Any:
    """relu6(x + 3) / 6."""
    return _activation("hardsigmoid", x)


@_on_arrays
def softmax(x: Any, dim: int = 1) -> Any:
    """exp(x) / sum exp(x) along dim, without overflow."""
    tracer, src = _source(x)
    return tracer.apply("softmax", src, integer(dim, "dim"), False)


@_on_arrays
def log_softmax(x: Any, dim: int = 1) -> Any:
    """log(softmax(x)) along dim, without overflow or loss of small values."""
    tracer, src = _source(x)
    return tracer.apply("softmax", src, integer(dim, "dim"), True)


# ---- pooling and size ------------------------------------------------------------------------------------------------


@_on_arrays
def max_pool2d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    """The largest value of each window; the first one gets the gradient. stride defaults to kernel_size."""
    tracer, src = _source(x)
    kernel = pair(kernel_size, "kernel_size", 1)
    step = kernel if stride is None else pair(stride, "stride", 1)
    pad, dilation = pair(padding, "padding", 0), pair(dilation, "dilation", 1)
    return tracer.apply("max_pool2d", src, kernel, step, pad, dilation, ceil_mode)


@_on_arrays
def avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The mean of each window; padding counts as zeros if count_include_pad. stride defaults to kernel_size."""
    tracer, src = _source(x)
    kernel = pair(kernel_size, "kernel_size", 1)
    step = kernel if stride is None else pair(stride, "stride", 1)
    divisor = 0 if divisor_override is None else integer(divisor_override, "divisor_override", 1)
    pad = pair(padding, "padding", 0)
    return tracer.apply("avg_pool2d", src, kernel, step, pad, ceil_mode, count_include_pad, divisor)


def _image_size(x: Any) -> tuple[int, int]:
    if x.ndim != 4:
        raise ValueError(f"x: got shape {x.shape}, expected 4 dimensions (n, c, h, w)")
    return x.shape[2], x.shape[3]


@_on_arrays
def adaptive_avg_pool2d(x: Any, output_size: Any) -> Any:
    """Means over windows that divide the image into output_size; None keeps a side. (1, 1) is global pooling."""
    tracer, src = _source(x)
    height, width = _image_size(x)
    rows, columns = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    size = (
        height if rows is None else integer(rows, "output_size", 1),
        width if columns is None else integer(columns, "output_size", 1),
    )
    return tracer.apply("resize", "adaptive_avg_pool2d", src, size)


def scale_factors(scale_factor: Any) -> tuple[float, float]:
    """scale_factor as (rows, columns), checked."""
    factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
    if len(factors) != 2:
        raise ValueError(f"scale_factor: got {len(factors)} values, expected a number or (rows, columns)")
    rows, columns = (real(f, "scale_factor") for f in factors)
    if not (0 < rows < math.inf and 0 < columns < math.inf):
        raise ValueError(f"scale_factor: got {scale_factor}, expected positive numbers")
    return rows, columns


@_on_arrays
def interpolate(
    x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Any:
    """Resizes images to `size`, or by `scale_factor`; mode 'nearest' or 'bilinear'."""
    tracer, src = _source(x)
    choice(mode, "mode", ("nearest", "bilinear"))
    if (size is None) == (scale_factor is None):
        raise ValueError("size, scale_factor: got both or none, expected one of them")
    if align_corners is not None and mode == "nearest":
        raise ValueError(f"align_corners: got {align_corners}, expected None with mode 'nearest'")
    height, width = _image_size(x)
    if size is not None:
        target, scale = pair(size, "size", 1), (0.0, 0.0)
    else:
        rows, columns = scale_factors(scale_factor)
        target, scale = (math.floor(height * rows), math.floor(width * columns)), (1.0 / rows, 1.0 / columns)
        if min(target) < 1 or max(target) > 2**31:
            raise ValueError(f"scale_factor: got {scale_factor}, which makes {height} x {width} pixels {target}")
    return tracer.apply("resize", mode, src, target, scale, bool(align_corners))


# ---- the rest --------------------------------------------------------------------------------------------------------


@_on_arrays
def dropout(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """Zeroes each element with probability p and scales the others by 1 / (1 - p). Srivastava et al., 2014."""
    tracer, src = _source(x)
    return tracer.apply("dropout", src, real(p, "p", 0.0, 1.0), training, False)


@_on_arrays
def dropout2d(x: Any, p: float = 0.5, training: bool = True) -> Any:
    """Zeroes whole channels of an image with probability p. Tompson et al., 2015."""
    tracer, src = _source(x)
    return tracer.apply("dropout", src, real(p, "p", 0.0, 1.0), training, True)


@_on_arrays
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Joins the axes start_dim to end_dim."""
    return x.tracer.flatten(x, integer(start_dim, "start_dim"), integer(end_dim, "end_dim"))


@_on_arrays
def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Any:
    """Adds to both ends of the last axes, or takes away where negative: pad (left, right, top, bottom, ...).

    mode: 'constant' adds `value`; 'reflect' mirrors without the edge, 'replicate' repeats the edge, 'circular' goes on
    at the other end. For zeros around a convolution, the convolution's own padding is faster."""
    _source(x)
    amounts = [integer(amount, "pad") for amount in pad]
    choice(mode, "mode", ("constant", "reflect", "replicate", "circular"))
    if len(amounts) % 2 or len(amounts) > 2 * x.ndim:
        raise ValueError(f"pad: got {len(amounts)} numbers, expected two for each of up to {x.ndim} axes")
    for i in range(len(amounts) // 2):
        axis = x.ndim - 1 - i
        before, after = amounts[2 * i : 2 * i + 2]
        x = _cut(x, axis, max(0, -before), x.shape[axis] - max(0, -after))
        before, after = max(0, before), max(0, after)
        if mode == "constant":
            fill = real(value, "value")
            ends = [np.full((*x.shape[:axis], n, *x.shape[axis + 1 :]), fill) for n in (before, after)]
        else:
            ends = _continued(x, axis, before, after, mode)
        pieces = [piece for piece in (ends[0], x, ends[1]) if piece.shape[axis]]
        x = concat(pieces, axis) if len(pieces) > 1 else x
    return x


def _cut(x: Any, axis: int, first: int, end: int, step: int = 1) -> Any:
    """x[first:end:step] along axis; with a negative step, end -1 takes element 0 too."""
    if first == 0 and end == x.shape[axis] and step == 1:
        return x
    stop = None if step < 0 and end < 0 else end
    return x[(slice(None),) * axis + (slice(first, stop, step),)]


def _continued(x: Any, axis: int, before: int, after: int, mode: str) -> list[Any]:
    size = x.shape[axis]
    most = {"reflect": size - 1, "circular": size, "replicate": math.inf if size else 0}[mode]
    if max(before, after) > most:
        raise ValueError(f"pad: got {(before, after)} for {size} elements, expected at most {most} with mode {mode!r}")
    if mode == "reflect":
        return [_cut(x, axis, before, 0, -1), _cut(x, axis, size - 2, size - 2 - after, -1)]
    if mode == "circular":
        return [_cut(x, axis, size - before, size), _cut(x, axis, 0, after)]
    ones = [np.ones([n if i == axis else 1 for i in range(x.ndim)]) for n in (before, after)]
    return [_cut(x, axis, 0, 1) * ones[0], _cut(x, axis, size - 1, size) * ones[1]]


@_on_arrays
def concat(x: Sequence[Any], dim: int = 1) -> Any:
    """Joins tensors along dim; their other sizes agree."""
    tensors = list(x)
    if not tensors:
        raise ValueError("x: got no tensors, expected at least one")
    tracer = next(t for t in tensors if isinstance(t, Tensor)).tracer
    return tracer.apply("concat", [tracer.source(t, f"x[{i}]") for i, t in enumerate(tensors)], integer(dim, "dim"))


cat = concat
