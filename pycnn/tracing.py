"""From a `forward` written in Python to a graph of the engine.

`forward` runs once per combination of shapes, dtype and modes, over symbolic tensors that record what is done to them.
The engine then computes, forward and backward; Python holds no autograd of its own.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from pycnn._core import Arena, Graph, Runner
from pycnn.parameter import Array, Parameter


class Tensor:
    """A tensor of a network being traced: it has a shape and a dtype, but no values yet.

    Arithmetic (+ - * with tensors, parameters, arrays and numbers; / with numbers), slicing and the functions of
    `pycnn.functional` work on it. Whatever would need its values, as `if`, `float()` or a NumPy function, raises
    TypeError."""

    __slots__ = ("shape", "tracer", "value")
    __array_ufunc__ = None  # array * tensor asks Tensor.__rmul__; NumPy's own functions raise TypeError

    def __init__(self, tracer: Tracer, value: int) -> None:
        self.tracer = tracer
        self.value = value
        self.shape: tuple[int, ...] = tracer.graph.shape(value)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.tracer.graph.dtype)

    def __repr__(self) -> str:
        return f"Tensor(shape={self.shape}, dtype={self.dtype}, symbolic)"

    # -- arithmetic

    def __add__(self, other: Any) -> Tensor:
        if isinstance(other, numbers.Real):
            return self.tracer.affine(self, 1.0, float(other))
        return self.tracer.add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Tensor:
        if isinstance(other, numbers.Real):
            return self.tracer.affine(self, 1.0, -float(other))
        return self.tracer.add(self, other, -1.0)

    def __rsub__(self, other: Any) -> Tensor:
        return (-self) + other

    def __mul__(self, other: Any) -> Tensor:
        if isinstance(other, numbers.Real):
            return self.tracer.affine(self, float(other), 0.0)
        return self.tracer.multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Tensor:
        if isinstance(other, numbers.Real):
            return self.tracer.affine(self, 1.0 / float(other), 0.0)
        raise TypeError(f"a symbolic tensor can be divided by a number only, got {type(other).__name__}")

    def __neg__(self) -> Tensor:
        return self.tracer.affine(self, -1.0, 0.0)

    # -- shape

    def __getitem__(self, index: Any) -> Tensor:
        return self.tracer.index(self, index if isinstance(index, tuple) else (index,))

    def reshape(self, *shape: Any) -> Tensor:
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        return self.tracer.reshape(self, tuple(int(s) for s in sizes))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        return self.tracer.flatten(self, start_dim, end_dim)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    # -- what would need values

    def _refuse(self, what: str) -> NoReturn:
        raise TypeError(
            f"{what} needs the values of a symbolic tensor of shape {self.shape}: forward() is traced once over "
            "symbolic tensors, so what it does may depend on shapes but not on values"
        )

    def __bool__(self) -> bool:
        self._refuse("a truth test (if, while, and, or, not)")

    def __float__(self) -> float:
        self._refuse("float()")

    def __int__(self) -> int:
        self._refuse("int()")

    def __index__(self) -> int:
        self._refuse("an index")

    def __len__(self) -> int:
        raise TypeError("len() of a symbolic tensor is not defined: use x.shape")

    def __iter__(self) -> NoReturn:
        self._refuse("iteration")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        self._refuse("conversion to a NumPy array")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> NoReturn:
        self._refuse(f"numpy.{func.__name__}")

    def _compare(self, other: Any) -> NoReturn:
        self._refuse("a comparison")

    __lt__ = __le__ = __gt__ = __ge__ = _compare

    def __eq__(self, other: object) -> bool:
        self._refuse("a comparison")

    def __ne__(self, other: object) -> bool:
        self._refuse("a comparison")

    __hash__ = object.__hash__


class Tracer:
    """A graph in the making, and what of Python's its values stand for.

    Args:
        dtype: float32 or float64. input_gradients: whether backward is to give gradients by the inputs; without them
            it ends at the first parameter that is trained.
    """

    def __init__(self, dtype: str, input_gradients: bool = True) -> None:
        self.graph = Graph(dtype)
        self.input_gradients = input_gradients
        self.inputs: list[tuple[str, int, str]] = []
        self.bindings: dict[int, tuple[int, Array, Array | None, Any]] = {}  # by id of what is bound
        self.records: list[tuple[Any, tuple[Tensor, ...], Any]] = []  # (module, sources, result), in call order

    # -- values

    def input(self, name: str, shape: Sequence[int], dtype: str | None = None) -> Tensor:
        value = self.graph.input(shape, dtype)
        self.inputs.append((name, value, dtype or self.graph.dtype))
        if self.input_gradients and (dtype or self.graph.dtype) != "int64":
            self.graph.require_gradient(value)
        return Tensor(self, value)

    def parameter(self, parameter: Parameter) -> int:
        known = self.bindings.get(id(parameter))
        if known is not None:
            return known[0]
        self._check_dtype("parameter", parameter.dtype)
        value = self.graph.parameter(parameter.shape)
        if parameter.requires_grad:
            self.graph.require_gradient(value)
        self.bindings[id(parameter)] = (value, parameter.data, parameter.grad, parameter)
        return value

    def state(self, array: Array) -> int:
        """A value for an array that the engine reads, and may update, in place."""
        known = self.bindings.get(id(array))
        if known is not None:
            return known[0]
        if array.dtype != np.int64:
            self._check_dtype("array", array.dtype)
        value = self.graph.state(array.shape, str(array.dtype))
        self.bindings[id(array)] = (value, array, None, array)
        return value

    def _check_dtype(self, what: str, dtype: np.dtype[Any]) -> None:
        if str(dtype) != self.graph.dtype:
            raise TypeError(f"{what}: got {dtype}, expected {self.graph.dtype}, as the network's other tensors")

    def source(self, operand: Any, name: str = "operand") -> int:
        if isinstance(operand, Tensor):
            if operand.tracer is not self:
                raise ValueError(f"{name}: got a tensor of another trace; keep no tensors from one call to the next")
            return operand.value
        if isinstance(operand, Parameter):
            return self.parameter(operand)
        if isinstance(operand, np.ndarray):
            constant = np.array(operand, dtype=self.graph.dtype, order="C")
            return self.state(constant)
        raise TypeError(f"{name}: got {type(operand).__name__}, expected a tensor, a parameter, an array or a number")

    def weights(self, operand: Any, name: str) -> int | None:
        """The value of weights, which must be a Parameter or an array; None stays None."""
        if operand is None:
            return None
        if isinstance(operand, Tensor):
            raise TypeError(f"{name}: got a symbolic tensor, expected a parameter or an array")
        return self.source(operand, name)

    # -- operations that Python's syntax names

    def apply(self, method: str, *args: Any, **kwargs: Any) -> Tensor:
        """The result of an operation of `Graph`."""
        value = getattr(self.graph, method)(*args, **kwargs)
        return Tensor(self, value)

    def affine(self, x: Tensor, alpha: float, beta: float) -> Tensor:
        return self.apply("affine", self.source(x), alpha, beta)

    def add(self, left: Any, right: Any, alpha: float = 1.0) -> Tensor:
        return self.apply("add", self.source(left), self.source(right), alpha)

    def multiply(self, left: Any, right: Any) -> Tensor:
        return self.apply("multiply", self.source(left), self.source(right))

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.apply("reshape", self.source(x), shape)

    def flatten(self, x: Tensor, start_dim: int, end_dim: int) -> Tensor:
        rank = max(x.ndim, 1)
        first, last = (d + rank if d < 0 else d for d in (start_dim, end_dim))
        if not 0 <= first < rank or not 0 <= last < rank or first > last:
            raise ValueError(
                f"start_dim, end_dim: got {start_dim}, {end_dim}, expected dimensions of shape {x.shape} in order"
            )
        size = 1
        for length in x.shape[first : last + 1]:
            size *= length
        return self.reshape(x, (*x.shape[:first], size, *x.shape[last + 1 :]))

    def index(self, x: Tensor, index: tuple[Any, ...]) -> Tensor:
        """x[index] for integers, slices and one Ellipsis."""
        if sum(item is Ellipsis for item in index) > 1:
            raise IndexError("index: got more than one Ellipsis")
        if any(item is Ellipsis for item in index):
            at = next(i for i, item in enumerate(index) if item is Ellipsis)
            index = index[:at] + (slice(None),) * (x.ndim - len(index) + 1) + index[at + 1 :]
        if len(index) > x.ndim:
            raise IndexError(f"index: got {len(index)} indices for {x.ndim} dimensions")
        index = index + (slice(None),) * (x.ndim - len(index))
        starts, steps, sizes, kept = [], [], [], []
        for axis, (item, length) in enumerate(zip(index, x.shape, strict=True)):
            if isinstance(item, slice):
                start, stop, step = item.indices(length)
                steps.append(step)
                sizes.append(len(range(start, stop, step)))
                starts.append(start if sizes[-1] else 0)
                kept.append(sizes[-1])
            elif isinstance(item, (int, np.integer)) and not isinstance(item, bool):
                if not -length <= item < length:
                    raise IndexError(f"index: got {item} for axis {axis} of size {length}")
                starts.append(int(item) % length)
                steps.append(1)
                sizes.append(1)
            else:
                raise TypeError(f"index: got {type(item).__name__}, expected integers, slices or Ellipsis")
        result = self.apply("slice", x.value, starts, steps, sizes)
        return result if len(kept) == x.ndim else self.reshape(result, tuple(kept))


def flatten_results(results: Any) -> tuple[list[Tensor], Any]:
    """The tensors in what `forward` returned, and a recipe to put arrays in their places."""
    if isinstance(results, Tensor):
        return [results], None
    if isinstance(results, (tuple, list)):
        for item in results:
            if not isinstance(item, Tensor):
                raise TypeError(f"forward: got {type(item).__name__} among the results, expected tensors")
        return list(results), type(results)
    raise TypeError(f"forward: returned {type(results).__name__}, expected a tensor or a tuple of tensors")


def list_outputs(tracer: Tracer, results: Any, watch: bool = False) -> tuple[list[int], Any]:
    """Makes what `forward` returned the graph's outputs; returns their values, and a recipe for arrays in their places.
    With `watch`, all but the first take no gradient.

    The engine's outputs are results of operations, each once: an input passed through is copied."""
    tensors, container = flatten_results(results)
    graph = tracer.graph
    outputs: list[int] = []
    for tensor in tensors:
        value = tensor.value
        if value in outputs or any(value == v for _, v, _ in tracer.inputs):
            value = graph.reshape(value, tensor.shape)
        if watch and outputs:
            graph.watch(value)
        else:
            graph.output(value)
        outputs.append(value)
    return outputs, container


class Traced:
    """A traced network, ready to run. Traces with one arena run in the same memory: only the one that ran forward last
    can run backward."""

    def __init__(
        self,
        tracer: Tracer,
        results: Any,
        *,
        copy: bool,
        backward: bool = True,
        repeat: bool = True,
        watch: bool = False,
        recompute: str = "cheap",
        arena: Arena | None = None,
    ) -> None:
        outputs, self.container = list_outputs(tracer, results, watch)
        self.runner = Runner(
            tracer.graph, tracer.inputs, outputs, backward, repeat, copy, recompute=recompute, arena=arena
        )
        self.held = []
        for value, data, grad, owner in tracer.bindings.values():
            self.runner.bind(value, data, grad)
            self.held.append(owner)

    def forward(self, arrays: tuple[Array, ...], seed: int, call: int) -> Any:
        results = self.runner.forward(arrays, seed, call)
        return results[0] if self.container is None else self.container(results)

    def backward(self, gradients: tuple[Any, ...]) -> Any:
        if self.container is not None and len(gradients) == 1 and isinstance(gradients[0], (tuple, list)):
            gradients = tuple(gradients[0])
        results = self.runner.backward(gradients)
        return results[0] if len(results) == 1 else tuple(results)
