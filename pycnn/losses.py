"""Losses, with the names, arguments and semantics of `torch.nn`.

    loss = CrossEntropyLoss()
    value = loss(logits, targets)
    model.backward(loss.backward())

A loss is a graph of one operation; `Trainer` puts it behind the network in one graph with it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from pycnn._arguments import choice, integer, real
from pycnn._core import Arena
from pycnn.parameter import FLOAT_DTYPES, Array
from pycnn.tracing import Tensor, Traced, Tracer

_REDUCTIONS = ("mean", "sum", "none")
_TRACES_KEPT = 4


class Loss:
    """Base of the losses.

    Called with the network's output and the targets, as NumPy arrays, it gives a float, or for reduction 'none' an
    array; `backward` then gives the gradient by the output. float32 and float64 are computed in their own precision.

    Args:
        reduction: 'mean', 'sum' or 'none'. The mean over an empty batch is 0, over ignored targets only NaN.

    Raises:
        TypeError: an argument is no array or of another dtype. ValueError: shapes do not fit, or a target is no class.
    """

    _output_name = "logits"
    _target_dtype: str | None = None  # None: that of the output

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = choice(reduction, "reduction", _REDUCTIONS)
        self._traces: OrderedDict[Any, Traced] = OrderedDict()
        self._arena = Arena()
        self._last: Traced | None = None
        self._last_value: Array | None = None

    def __call__(self, logits: Array, targets: Array) -> Any:
        self._last = None  # if this fails, there is nothing to go back from
        traced = self._find_trace(logits, targets)
        self._last_value = np.asarray(traced.forward((logits, targets), 0, 0))
        self._last = traced
        return self._last_value if self.reduction == "none" else float(self._last_value)

    def backward(self, dy: Any = None) -> Array:
        """The gradient of the last call by its first argument.

        Args:
            dy: the gradient by the loss: a number, or for reduction 'none' an array of the loss's shape and dtype;
                1 by default.

        Raises:
            RuntimeError: before any call. TypeError, ValueError: dy of the wrong dtype or shape.
        """
        if self._last is None or self._last_value is None:
            raise RuntimeError(f"{type(self).__name__}.backward: call forward first, as loss(logits, targets)")
        upstream = dy
        if dy is None:
            upstream = np.ones_like(self._last_value)
        elif self.reduction != "none":
            upstream = np.full_like(self._last_value, real(dy, "dy"))
        gradient: Array = self._last.backward((upstream,))[0]
        return gradient

    def _find_trace(self, output: Any, targets: Any) -> Traced:
        name = self._output_name
        if not isinstance(output, np.ndarray):
            raise TypeError(f"{name}: got {type(output).__name__}, expected a NumPy array of float32 or float64")
        dtype = output.dtype.newbyteorder("=")
        if dtype not in FLOAT_DTYPES:
            raise TypeError(f"{name}: got dtype {output.dtype}, expected float32 or float64")
        if not isinstance(targets, np.ndarray):
            wanted = self._target_dtype or str(dtype)
            raise TypeError(f"targets: got {type(targets).__name__}, expected a NumPy array of {wanted}")
        key = (output.shape, targets.shape, dtype)
        if key in self._traces:
            self._traces.move_to_end(key)
            return self._traces[key]
        tracer = Tracer(str(dtype))
        source = tracer.input(name, output.shape)
        value = self.trace(tracer, source, self.input_targets(tracer, targets.shape))
        traced = Traced(tracer, value, copy=True, arena=self._arena)
        if len(self._traces) >= _TRACES_KEPT:
            self._traces.popitem(last=False)
        self._traces[key] = traced
        return traced

    # -- as a part of a larger graph

    def input_targets(self, tracer: Tracer, shape: tuple[int, ...]) -> Tensor:
        """An input named 'targets', which gets no gradient."""
        dtype = self._target_dtype or tracer.graph.dtype
        value = tracer.graph.input(shape, dtype)
        tracer.inputs.append(("targets", value, dtype))
        return Tensor(tracer, value)

    def trace(self, tracer: Tracer, output: Tensor, targets: Tensor) -> Tensor:
        """Adds the loss to a network being traced; the result has shape (), or the targets' for reduction 'none'."""
        raise NotImplementedError

    # -- over several batches

    def divisor(self, targets: Array) -> float:
        """What the mean over these targets divides by: the weight of a batch's mean in the mean of all."""
        return float(targets.size)

    def hits(self, output: Array, targets: Array) -> tuple[int, int] | None:
        """(targets that the output foretells, targets that count), or None where there is no right and wrong."""
        return None


class _ClassLoss(Loss):
    """A loss with class numbers for targets: any integer dtype, (n, ...) for an output of shape (n, c, ...)."""

    _target_dtype = "int64"

    def __init__(self, weight: Any, ignore_index: int, reduction: str) -> None:
        super().__init__(reduction)
        self.weight = _weights(weight, "weight")
        if self.weight is not None and self.weight.ndim != 1:
            raise ValueError(f"weight: got shape {self.weight.shape}, expected (c,), one number a class")
        self.ignore_index = integer(ignore_index, "ignore_index")

    def _sources(self, tracer: Tracer, output: Tensor, targets: Tensor) -> list[int]:
        sources = [tracer.source(output), tracer.source(targets)]
        return sources if self.weight is None else [*sources, tracer.source(self.weight)]

    def divisor(self, targets: Array) -> float:
        kept = targets[targets != self.ignore_index]
        return float(kept.size if self.weight is None else self.weight.take(kept, mode="clip").sum())

    def hits(self, output: Array, targets: Array) -> tuple[int, int] | None:
        kept = targets != self.ignore_index
        right = (output.argmax(axis=1) == targets) & kept if output.size else kept
        return int(right.sum()), int(kept.sum())


class CrossEntropyLoss(_ClassLoss):
    """-log softmax(logits) at the target class, averaged over the targets.

    Args:
        weight: a factor for each class, (c,); the mean divides by the sum of the targets' factors.
        ignore_index: targets of this value do not count.
        reduction: 'mean', 'sum' or 'none'.
        label_smoothing: from 0 to 1, the part of each target that is spread evenly over the classes. Szegedy et al.,
            "Rethinking the Inception architecture for computer vision", CVPR 2016.

    Shapes: logits (n, c, ...), targets (n, ...) of any integer dtype.
    """

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        self.label_smoothing = real(label_smoothing, "label_smoothing", 0.0, 1.0)

    def trace(self, tracer: Tracer, output: Tensor, targets: Tensor) -> Tensor:
        sources = self._sources(tracer, output, targets)
        return tracer.apply("loss", "cross_entropy", sources, self.reduction, self.label_smoothing, self.ignore_index)


class NLLLoss(_ClassLoss):
    """-x at the target class, averaged over the targets, for log-probabilities x as LogSoftmax gives them.

    Arguments and shapes as of CrossEntropyLoss.
    """

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(weight, ignore_index, reduction)

    def trace(self, tracer: Tracer, output: Tensor, targets: Tensor) -> Tensor:
        sources = self._sources(tracer, output, targets)
        return tracer.apply("loss", "nll", sources, self.reduction, 0.0, self.ignore_index)


class MSELoss(Loss):
    """(x - target)^2, averaged over the elements; targets have the output's shape and dtype."""

    def trace(self, tracer: Tracer, output: Tensor, targets: Tensor) -> Tensor:
        return tracer.apply("loss", "mse", [tracer.source(output), tracer.source(targets)], self.reduction)


class L1Loss(Loss):
    """|x - target|, averaged over the elements; targets have the output's shape and dtype."""

    def trace(self, tracer: Tracer, output: Tensor, targets: Tensor) -> Tensor:
        return tracer.apply("loss", "l1", [tracer.source(output), tracer.source(targets)], self.reduction)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of sigmoid(logits), without overflow: -pos_weight t log p - (1 - t) log(1 - p).

    Args:
        weight: factors that broadcast against the logits.
        reduction: 'mean', 'sum' or 'none'.
        pos_weight: factors of the positive part that broadcast against the logits.

    Targets have the logits' shape and dtype, and lie from 0 to 1.
    """

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.weight = _weights(weight, "weight")
        self.pos_weight = _weights(pos_weight, "pos_weight")

    def trace(self, tracer: Tracer, output: Tensor, targets: Tensor) -> Tensor:
        factors = [None if w is None else tracer.source(w) for w in (self.weight, self.pos_weight)]
        sources = [tracer.source(output), tracer.source(targets), *factors]
        return tracer.apply("loss", "bce_with_logits", sources, self.reduction)

    def hits(self, output: Array, targets: Array) -> tuple[int, int] | None:
        return int(((output > 0) == (targets > 0.5)).sum()), targets.size


def _weights(value: Any, name: str) -> Array | None:
    """Factors as a float64 copy."""
    if value is None:
        return None
    array = np.array(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: got dtype {array.dtype}, expected real numbers")
    return array.astype(np.float64)
