"""ONNX nodes for the operations of a graph.

An Emitter has the methods of `pycnn._core.Graph` that add operations, with the same names and arguments; each writes
the nodes that say the same in ONNX, and returns the name of the result. A source that is left out is None.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn.parameter import Array

_OPSET = 17  # what every operator here was born in or before, but for:
_NEWER = {"Mish": 18, "Gelu": 20, "GroupNormalization": 21}
_IR_VERSION = {17: 8, 18: 8, 20: 9, 21: 10}  # of the file format, as old as the operators allow

_FAR = -(2**31)  # an end of Slice before the first element
_PLAIN_ACTIVATIONS = {
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "mish": "Mish",
    "selu": "Selu",
    "hardswish": "HardSwish",
}
_SHARPEST = 16.0  # above this, log(1 + exp(x)) is x in float32


@dataclass
class Weight:
    """An array of a graph. Its name is empty if it is no more than a constant."""

    name: str
    array: Array
    is_parameter: bool


def _along(axis: int, pair: Sequence[int], other: int) -> tuple[int, int]:
    """(rows, columns) with `other` in the place of what is not of this axis."""
    return (pair[0], other) if axis == 0 else (other, pair[1])


class Emitter:
    """Collects the nodes of one graph.

    Args:
        onnx: the package.
        graph: what is written.
        weights: the graph's arrays, by their values.
    """

    def __init__(self, onnx: Any, graph: Any, weights: dict[int, Weight]) -> None:
        self.helper = onnx.helper
        self.float32 = onnx.TensorProto.FLOAT
        self.from_array = onnx.numpy_helper.from_array
        self.graph = graph
        self.other: Any = None
        self.other_arrays: dict[int, Array] = {}
        self.weights = weights
        self.opset = _OPSET
        self.names: dict[int, str] = {}
        self.taken = {weight.name for weight in weights.values()}
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[int] = []
        self.parameters: list[str] = []
        self.buffers: list[str] = []
        self.current = -1  # the value that is being made

    @property
    def ir_version(self) -> int:
        return _IR_VERSION[self.opset]

    def compare(self, other: Any, arrays: dict[int, Array]) -> None:
        """Takes the same graph for a larger batch, and its arrays: what changes with the batch is left open."""
        self.other, self.other_arrays = other, arrays

    def begin(self, inputs: list[tuple[str, int, str]], outputs: list[int]) -> None:
        for name, value, _ in inputs:
            self.names[value] = self._unique(name)
            self.inputs.append(self._described(self.names[value], value))
        self.outputs = outputs

    def end(self, name: str) -> Any:
        """The graph, whose outputs are called output, or output_0, output_1, ..."""
        described = []
        for i, value in enumerate(self.outputs):
            output = self._unique("output" if len(self.outputs) == 1 else f"output_{i}")
            self.nodes.append(self.helper.make_node("Identity", [self.source(value)], [output], name=f"output_{i}"))
            described.append(self._described(output, value))
        self._join_outputs()
        return self.helper.make_graph(self.nodes, name, self.inputs, described, self.initializers)

    def _join_outputs(self) -> None:
        """Drops the last Identity of an output where its source can have the output's name."""
        makers = {result: node for node in self.nodes for result in node.output}
        for identity in self.nodes[-len(self.outputs) :]:
            source, output = identity.input[0], identity.output[0]
            takers = [node for node in self.nodes if source in node.input]
            if source in makers and takers == [identity]:
                makers[source].output[:] = [output if r == source else r for r in makers[source].output]
                self.nodes.remove(identity)

    def emit(self, operation: Any) -> None:
        """Writes one operation. ValueError for what ONNX cannot say."""
        method = getattr(self, operation.method, None)
        if method is None:
            raise ValueError(f"model: uses the operation {operation.method!r}, which ONNX has no operators for")
        self.current = operation.result
        self.names[operation.result] = method(*operation.arguments, **operation.options)

    def agree(self, operation: Any, twin: Any) -> bool:
        """Whether nodes for both batches can be the same."""
        for value in self.graph.sources[operation.result]:
            if value in self.weights and not np.array_equal(self.weights[value].array, self.other_arrays[value]):
                axis = operation.arguments[1] if operation.method == "concat" else 0
                same = self._shape(value)[axis] == self.other.shape(value)[axis]
                if operation.method != "concat" or self._border(operation.arguments[0]) is None or not same:
                    return False
        if operation.method == "reshape":
            return operation.arguments[0] == twin.arguments[0] and self._template(operation.result) is not None
        if operation.method == "slice":
            src, *selection = operation.arguments
            other, *larger = twin.arguments
            shapes = zip(*selection, *larger, self.graph.shape(src), self.other.shape(other), strict=True)
            return src == other and all(
                (s, t, n) == (s2, t2, n2) or (s, t, n, s2, t2, n2) == (0, 1, size, 0, 1, size2)
                for s, t, n, s2, t2, n2, size, size2 in shapes
            )
        return (operation.arguments, operation.options) == (twin.arguments, twin.options)

    # -- pieces

    def source(self, value: int | None) -> str:
        """The name of a value; weights become initializers when they are first used, constants nodes."""
        if value is None:
            return ""
        if value not in self.names:
            weight = self.weights[value]
            self.names[value] = self._stored(weight, weight.array.shape)
        return self.names[value]

    def _stored(self, weight: Weight, shape: Sequence[int]) -> str:
        array = weight.array.reshape(shape)
        if not weight.name:
            return self.constant(array)
        (self.parameters if weight.is_parameter else self.buffers).append(weight.name)
        self.initializers.append(self.from_array(np.ascontiguousarray(array), weight.name))
        return weight.name

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        values = np.array(array, dtype)
        return self.node("Constant", value=self.from_array(values))

    def node(self, operator: str, *sources: str, **attributes: Any) -> str:
        self.opset = max(self.opset, _NEWER.get(operator, _OPSET))
        result = self._unique(f"{operator.lower()}_{len(self.nodes)}")
        while sources and not sources[-1]:
            sources = sources[:-1]
        self.nodes.append(self.helper.make_node(operator, sources, [result], name=result, **attributes))
        return result

    def _unique(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self.taken:
            count += 1
            name = f"{wanted}.{count}"
        self.taken.add(name)
        return name

    def _shape(self, value: int) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.graph.shape(value)
        return shape

    def _described(self, name: str, value: int) -> Any:
        sizes: list[Any] = list(self._shape(value))
        if self.other is not None:
            for i, (size, larger) in enumerate(zip(sizes, self.other.shape(value), strict=True)):
                if size != larger:
                    sizes[i] = "batch" if i == 0 else None
        return self.helper.make_tensor_value_info(name, self.float32, sizes)

    def _template(self, value: int) -> list[int] | None:
        """A shape for Reshape that fits any batch: -1 at the one size that goes with it; None if there are more."""
        sizes = list(self._shape(value))
        if self.other is not None:
            changing = [i for i, (a, b) in enumerate(zip(sizes, self.other.shape(value), strict=True)) if a != b]
            if len(changing) > 1:
                return None
            for i in changing:
                sizes[i] = -1
        return sizes

    # -- linear maps

    def conv2d(
        self, src: int, weights: int, bias: int | None, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> str:
        return self.node(
            "Conv",
            *map(self.source, (src, weights, bias)),
            kernel_shape=self._shape(weights)[2:],
            strides=stride,
            pads=padding,
            dilations=dilation,
            group=groups,
        )

    def conv_transpose2d(
        self,
        src: int,
        weights: int,
        bias: int | None,
        stride: Any,
        padding: Any,
        output_padding: Any,
        dilation: Any,
        groups: int,
    ) -> str:
        return self.node(
            "ConvTranspose",
            *map(self.source, (src, weights, bias)),
            kernel_shape=self._shape(weights)[2:],
            strides=stride,
            pads=padding,
            output_padding=output_padding,
            dilations=dilation,
            group=groups,
        )

    def linear(self, src: int, weights: int, bias: int | None) -> str:
        shape = self._shape(src)
        rows = self.source(src)
        if len(shape) != 2:
            rows = self.node("Reshape", rows, self.constant([-1, shape[-1]], np.int64))
        y = self.node("Gemm", rows, self.source(weights), self.source(bias), transB=1)
        return y if len(shape) == 2 else self._reshaped(y, self.current)

    # -- normalization

    def norm(
        self,
        kind: str,
        sources: Sequence[int | None],
        eps: float,
        momentum: float | None = 0.1,
        groups: int = 1,
        axes: int = 1,
        training: bool = True,
    ) -> str:
        src, weights, bias, *states = sources
        assert src is not None
        shape = self._shape(src)
        affine = shape[-axes:] if kind == "layer_norm" else shape[1:2]
        x = self.source(src)
        scale = self.constant(np.ones(affine)) if weights is None else self.source(weights)
        shift = self.constant(np.zeros(affine)) if bias is None else self.source(bias)
        if kind == "layer_norm":
            return self.node("LayerNormalization", x, scale, shift, axis=-axes, epsilon=eps)
        if kind == "group_norm":
            return self.node("GroupNormalization", x, scale, shift, num_groups=groups, epsilon=eps)
        if len(states) >= 2 and states[0] is not None and not training:
            statistics = map(self.source, states[:2])
            kept = 0.9 if momentum is None else 1.0 - momentum
            return self.node("BatchNormalization", x, scale, shift, *statistics, epsilon=eps, momentum=kept)
        if kind == "instance_norm":
            return self.node("InstanceNormalization", x, scale, shift, epsilon=eps)
        raise ValueError("model: normalizes by the batch's own statistics, which ONNX cannot say for evaluation")

    # -- activations

    def activation(self, kind: str, src: int, alpha: float = 0.0, beta: float = 0.0) -> str:
        x = self.source(src)
        if kind in _PLAIN_ACTIVATIONS:
            return self.node(_PLAIN_ACTIVATIONS[kind], x)
        if kind == "relu6":
            return self.node("Clip", x, self.constant(0.0), self.constant(6.0))
        if kind == "leaky_relu":
            return self.node("LeakyRelu", x, alpha=alpha)
        if kind == "elu":
            return self.node("Elu", x, alpha=alpha)
        if kind == "silu":
            return self.node("Mul", x, self.node("Sigmoid", x))
        if kind == "hardsigmoid":
            return self.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        if kind in ("gelu", "gelu_tanh"):
            return self.node("Gelu", x, approximate="tanh" if kind == "gelu_tanh" else "none")
        if kind == "softplus":
            return self._softplus(x, alpha, beta)
        raise ValueError(f"model: uses the activation {kind!r}, which ONNX has no operators for")

    def _softplus(self, x: str, beta: float, threshold: float) -> str:
        scaled = x if beta == 1.0 else self.node("Mul", x, self.constant(beta))
        y = self.node("Softplus", scaled)
        if beta != 1.0:
            y = self.node("Div", y, self.constant(beta))
        if threshold >= _SHARPEST:
            return y
        return self.node("Where", self.node("Greater", scaled, self.constant(threshold)), x, y)

    def prelu(self, src: int, slope: int) -> str:
        count, rank = self._shape(slope)[0], len(self._shape(src))
        if slope not in self.names:
            self.names[slope] = self._stored(self.weights[slope], [count, *[1] * max(0, rank - 2 if count > 1 else 0)])
        return self.node("PRelu", self.source(src), self.names[slope])

    def softmax(self, src: int, axis: int, log: bool) -> str:
        return self.node("LogSoftmax" if log else "Softmax", self.source(src), axis=axis)

    # -- pooling and size

    def max_pool2d(self, src: int, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> str:
        spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
        modes = self._ceil_modes(src, spans, stride, padding, ceil_mode)
        return self._pool("MaxPool", self.source(src), modes, kernel, stride, padding, dilations=dilation)

    def avg_pool2d(
        self, src: int, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool, divisor: int
    ) -> str:
        x = self.source(src)
        if not divisor:
            modes = self._ceil_modes(src, kernel, stride, padding, ceil_mode)
            counted = int(count_include_pad)
            return self._pool("AveragePool", x, modes, kernel, stride, padding, count_include_pad=counted)
        # What hangs over counts as padding, so that every window is divided by its full size.
        over = [max(0, more) for more in self._overhang(src, kernel, stride, padding)]
        pads = (*padding, *[p + more for p, more in zip(padding, over, strict=True)])
        y = self.node("AveragePool", x, kernel_shape=kernel, strides=stride, pads=pads, count_include_pad=1)
        return self.node("Mul", y, self.constant(math.prod(kernel) / divisor))

    def _overhang(self, src: int, spans: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> list[int]:
        """By how many rows and columns the last windows reach beyond the padding; negative: how many are left over."""
        sides = zip(self._shape(self.current)[2:], self._shape(src)[2:], spans, stride, padding, strict=True)
        return [(out - 1) * step + span - (size + 2 * p) for out, size, span, step, p in sides]

    def _ceil_modes(
        self, src: int, spans: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil_mode: bool
    ) -> list[bool]:
        """ceil_mode for rows and for columns: PyTorch leaves out windows that begin beyond the image, ONNX may not."""
        return [ceil_mode and more >= 0 for more in self._overhang(src, spans, stride, padding)]

    def _pool(
        self,
        operator: str,
        x: str,
        ceil_modes: Sequence[bool],
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        **attributes: Any,
    ) -> str:
        """One node; or one for rows and one for columns, if they differ in ceil_mode."""
        if ceil_modes[0] == ceil_modes[1]:
            sizes = {"kernel_shape": kernel, "strides": stride, "pads": (*padding, *padding), **attributes}
            return self.node(operator, x, ceil_mode=int(ceil_modes[0]), **sizes)
        for i, mode in enumerate(ceil_modes):
            own = {name: _along(i, value, 1) if name == "dilations" else value for name, value in attributes.items()}
            windows = _along(i, kernel, 1), _along(i, stride, 1), _along(i, padding, 0)
            x = self._pool(operator, x, (mode, mode), *windows, **own)
        return x

    def resize(
        self, kind: str, src: int, size: Any, scale: tuple[float, float] = (0.0, 0.0), align_corners: bool = False
    ) -> str:
        x, (height, width) = self.source(src), self._shape(src)[2:]
        if kind == "adaptive_avg_pool2d":
            return self._adaptive(x, (height, width), size)
        sides = zip(size, (height, width), scale, strict=True)
        factors = [1.0, 1.0, *[1.0 / step if step and out != side else out / side for out, side, step in sides]]
        bilinear = "align_corners" if align_corners else "half_pixel"
        attributes = (
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            if kind == "nearest"
            else {"mode": "linear", "coordinate_transformation_mode": bilinear}
        )
        narrow = [float(np.float32(factor)) for factor in factors]
        reached = [math.floor(side * factor) for side, factor in zip((height, width), narrow[2:], strict=True)]
        if reached == list(size):
            return self.node("Resize", x, "", self.constant(narrow), **attributes)
        if self.other is not None and self._shape(src)[0] != self.other.shape(src)[0]:
            batch = self.node("Shape", x, start=0, end=2)
            sizes = self.node("Concat", batch, self.constant(size, np.int64), axis=0)
        else:
            sizes = self.constant([*self._shape(src)[:2], *size], np.int64)
        return self.node("Resize", x, "", "", sizes, **attributes)

    def _adaptive(self, x: str, size: Sequence[int], out: Sequence[int]) -> str:
        if tuple(out) == (1, 1):
            return self.node("GlobalAveragePool", x)
        kernel, stride = [], []
        for n, m in zip(size, out, strict=True):
            starts = [i * n // m for i in range(m)]
            lengths = {-(-(i + 1) * n // m) - start for i, start in enumerate(starts)}
            steps = {b - a for a, b in itertools.pairwise(starts)} or {n}
            if len(lengths) > 1 or len(steps) > 1:
                raise ValueError(
                    f"model: adaptive average pooling from {tuple(size)} to {tuple(out)} has windows of several sizes, "
                    "which ONNX cannot say; expected sizes that divide, or another input_shape"
                )
            kernel.append(lengths.pop())
            stride.append(steps.pop())
        return self.node("AveragePool", x, kernel_shape=kernel, strides=stride)

    # -- the rest

    def dropout(self, src: int, p: float, training: bool, per_channel: bool) -> str:
        # Where it does nothing, it is kept for who trains on; of whole channels ONNX knows nothing.
        return self.source(src) if per_channel else self.node("Dropout", self.source(src), self.constant(p))

    def reshape(self, src: int, shape: Any) -> str:
        former, sizes = self._shape(src), self._shape(self.current)
        if len(sizes) == 2 and len(former) > 1 and former[0] == sizes[0]:
            return self.node("Flatten", self.source(src), axis=1)
        return self._reshaped(self.source(src), self.current)

    def _reshaped(self, x: str, value: int) -> str:
        return self.node("Reshape", x, self.constant(self._template(value), np.int64))

    def add(self, left: int, right: int, alpha: float = 1.0) -> str:
        if alpha in (1.0, -1.0):
            return self.node("Add" if alpha == 1.0 else "Sub", self.source(left), self.source(right))
        return self.node("Add", self.source(left), self.node("Mul", self.source(right), self.constant(alpha)))

    def multiply(self, left: int, right: int) -> str:
        return self.node("Mul", self.source(left), self.source(right))

    def affine(self, src: int, alpha: float, beta: float) -> str:
        y = self.source(src)
        if (alpha, beta) == (-1.0, 0.0):
            return self.node("Neg", y)
        if alpha != 1.0:
            y = self.node("Mul", y, self.constant(alpha))
        return y if beta == 0.0 and alpha != 1.0 else self.node("Add", y, self.constant(beta))

    def concat(self, sources: Sequence[int], axis: int) -> str:
        border = self._border(sources)
        if border is None:
            return self.node("Concat", *map(self.source, sources), axis=axis)
        at, fill = border
        axis %= len(self._shape(sources[at]))
        before, after = (sum(self._shape(v)[axis] for v in part) for part in (sources[:at], sources[at + 1 :]))
        pads = np.zeros((2, len(self._shape(sources[at]))), np.int64)
        pads[:, axis] = before, after
        return self.node("Pad", self.source(sources[at]), self.constant(pads.ravel(), np.int64), self.constant(fill))

    def _border(self, sources: Sequence[int]) -> tuple[int, float] | None:
        """Of sources that are one tensor between constants of one number, as `F.pad` makes them: where the tensor is,
        and the number. Pad says that for any batch."""
        tensors = [i for i, value in enumerate(sources) if value not in self.weights]
        constants = [self.weights[value] for value in sources if value in self.weights]
        numbers = {float(number) for weight in constants for number in np.unique(weight.array)}
        if len(tensors) != 1 or len(numbers) != 1 or any(weight.name for weight in constants):
            return None
        return tensors[0], numbers.pop()

    def slice(self, src: int, start: Sequence[int], step: Sequence[int], size: Sequence[int]) -> str:
        axes = [
            (axis, first, first + by * count if first + by * count >= 0 else _FAR, by)
            for axis, (first, by, count, full) in enumerate(zip(start, step, size, self._shape(src), strict=True))
            if (first, by, count) != (0, 1, full)
        ]
        if not axes:
            return self.node("Identity", self.source(src))
        numbers, starts, ends, steps = (self.constant(column, np.int64) for column in zip(*axes, strict=True))
        return self.node("Slice", self.source(src), starts, ends, numbers, steps)
