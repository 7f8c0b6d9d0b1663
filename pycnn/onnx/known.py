"""ONNX operators on known values: shapes, indices and other constants, computed by NumPy while a network is traced.

A function takes the node and its sources as arrays (None: left out) and returns an array, or a list of arrays for a
node of several results. PyTorch writes `x.flatten(1)` as Shape, Slice, Concat and Reshape: all but the last are these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pycnn.onnx.model_file import Node
from pycnn.parameter import Array

_LARGEST = 1 << 27  # elements of a constant that a few bytes of the file can ask for

# The types that Cast makes, by their number in the file; floats are all one here.
FLOAT_TYPES = (1, 10, 11, 16)
_DTYPES = {2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_}


def axes_of(node: Node, source: Array | None, rank: int, default: list[int] | None = None) -> list[int]:
    """The axes that a node names, by a source or, in older versions, an attribute; counted from the front."""
    axes = node.attributes.get("axes") if source is None else [int(axis) for axis in np.ravel(source)]
    if axes is None:
        axes = default if default is not None else list(range(rank))
    if any(not -rank <= axis < rank for axis in axes):
        raise ValueError(f"axes: got {axes}, expected axes of {rank} dimensions")
    return sorted({axis % rank for axis in axes})


def target_shape(node: Node, shape: tuple[int, ...], wanted: Array) -> tuple[int, ...]:
    """The shape that Reshape makes of `shape`: 0 keeps a size, -1 is what remains."""
    sizes = [int(size) for size in np.ravel(wanted)]
    if not node.attributes.get("allowzero", 0):
        sizes = [shape[i] if size == 0 and i < len(shape) else size for i, size in enumerate(sizes)]
    if sizes.count(-1) > 1 or any(size < -1 for size in sizes):
        raise ValueError(f"shape: got {sizes}, expected sizes and at most one -1")
    if -1 in sizes:
        if math.prod(shape) == 0 and 0 in sizes:  # a batch of none: what remains is what its images would have
            shape = tuple(size for size in shape if size)
        others = math.prod(size for size in sizes if size > 0)
        sizes[sizes.index(-1)] = math.prod(shape) // others
    return tuple(sizes)


def slices(
    node: Node, shape: tuple[int, ...], starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> tuple[slice, ...]:
    """The index that Slice stands for."""
    first = [int(i) for i in np.ravel(node.attributes["starts"] if starts is None else starts)]
    last = [int(i) for i in np.ravel(node.attributes["ends"] if ends is None else ends)]
    named = node.attributes.get("axes", range(len(first))) if axes is None else axes
    along = [int(axis) for axis in np.ravel(list(named))]
    step = [1] * len(first) if steps is None else [int(i) for i in np.ravel(steps)]
    index = [slice(None)] * len(shape)
    for axis, start, end, by in zip(along, first, last, step, strict=True):
        size = shape[axis]
        # Past either end means up to it, but Python counts a small negative end from the back.
        index[axis] = slice(start, None if by < 0 and end < -size else end, by)
    return tuple(index)


def unsqueezed(shape: tuple[int, ...], axes: list[int]) -> tuple[int, ...]:
    rank = len(shape) + len(axes)
    places = {axis % rank for axis in axes}
    rest = iter(shape)
    return tuple(1 if i in places else next(rest) for i in range(rank))


def squeezed(node: Node, shape: tuple[int, ...], source: Array | None) -> tuple[int, ...]:
    axes = axes_of(node, source, len(shape), [i for i, size in enumerate(shape) if size == 1])
    if any(shape[axis] != 1 for axis in axes):
        raise ValueError(f"axes: got {axes} of shape {shape}, expected axes of size 1")
    return tuple(size for i, size in enumerate(shape) if i not in axes)


def section_sizes(node: Node, size: int, source: Array | None) -> list[int]:
    """The sizes that Split cuts an axis of this size into."""
    given = node.attributes.get("split") if source is None else [int(part) for part in np.ravel(source)]
    if given is None:
        count = node.attributes.get("num_outputs", len(node.results))
        part = -(-size // count)
        given = [max(0, min(part, size - i * part)) for i in range(count)]
    if sum(given) != size or len(given) != len(node.results):
        raise ValueError(f"split: got {list(given)} for {len(node.results)} results, expected a sum of {size}")
    return list(given)


def _constant(node: Node) -> Array:
    for name, value in node.attributes.items():
        if name == "value":
            return np.asarray(value)
        if name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    raise ValueError(f"value: got {', '.join(node.attributes) or 'nothing'}, expected a dense tensor or numbers")


def _sizes(shape: Array) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in np.ravel(shape))
    if min(sizes, default=0) < 0 or math.prod(sizes) > _LARGEST:
        raise ValueError(f"shape: got {sizes}, expected sizes from 0 up and at most {_LARGEST} elements")
    return sizes


def _constant_of_shape(node: Node, shape: Array) -> Array:
    value = np.ravel(node.attributes.get("value", np.zeros(1, np.float32)))
    return np.full(_sizes(shape), value[0], value.dtype)


def _expand(node: Node, x: Array, shape: Array) -> Array:
    sizes = _sizes(shape)
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, sizes)).copy()


def _range(node: Node, start: Array, limit: Array, step: Array) -> Array:
    _sizes(np.array([max(0, math.ceil((limit.item() - start.item()) / step.item()))]))
    return np.arange(start.item(), limit.item(), step.item()).astype(start.dtype)


def _cast(node: Node, x: Array) -> Array:
    wanted = node.attributes["to"]
    if wanted in FLOAT_TYPES:
        return x.astype(np.float32)
    if wanted not in _DTYPES:
        raise ValueError(f"to: got type number {wanted}, expected floats, integers or booleans")
    return x.astype(_DTYPES[wanted])


def _divide(node: Node, left: Array, right: Array) -> Array:
    if left.dtype.kind == "f":
        return left / right
    if not np.all(right):
        raise ValueError("B: got zero to divide an integer by")
    return (np.sign(left) * np.sign(right) * (abs(left) // abs(right))).astype(left.dtype)  # towards zero


def _slice(node: Node, x: Array, *arguments: Array | None) -> Array:
    return x[slices(node, x.shape, *arguments)]


def _split(node: Node, x: Array, source: Array | None = None) -> list[Array]:
    axis = node.attributes.get("axis", 0)
    ends = np.cumsum(section_sizes(node, x.shape[axis], source))[:-1]
    return np.split(x, ends, axis)


def _unsqueeze(node: Node, x: Array, source: Array | None = None) -> Array:
    return x.reshape(unsqueezed(x.shape, node.attributes["axes"] if source is None else [int(a) for a in source]))


def _reduce(function: Callable[..., Any]) -> Callable[..., Array]:
    def run(node: Node, x: Array, source: Array | None = None) -> Array:
        axes = tuple(axes_of(node, source, x.ndim))
        return np.asarray(function(x, axis=axes, keepdims=bool(node.attributes.get("keepdims", 1))), x.dtype)

    return run


def _plain(function: Callable[..., Any]) -> Callable[..., Array]:
    def run(node: Node, *sources: Array) -> Array:
        return np.asarray(function(*sources))

    return run


def _fold(function: Callable[..., Any]) -> Callable[..., Array]:
    def run(node: Node, *sources: Array) -> Array:
        result = sources[0]
        for source in sources[1:]:
            result = function(result, source)
        return np.asarray(result)

    return run


OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": _plain(np.abs),
    "Add": _plain(np.add),
    "And": _plain(np.logical_and),
    "Cast": _cast,
    "Ceil": _plain(np.ceil),
    "Concat": lambda node, *sources: np.concatenate(sources, node.attributes["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _divide,
    "Equal": _plain(np.equal),
    "Exp": _plain(np.exp),
    "Expand": _expand,
    "Floor": _plain(np.floor),
    "Gather": lambda node, x, index: np.take(x, index, node.attributes.get("axis", 0)),
    "Greater": _plain(np.greater),
    "Identity": lambda node, x: x,
    "Less": _plain(np.less),
    "Max": _fold(np.maximum),
    "Min": _fold(np.minimum),
    "Mod": _plain(np.mod),
    "Mul": _plain(np.multiply),
    "Neg": _plain(np.negative),
    "Not": _plain(np.logical_not),
    "Or": _plain(np.logical_or),
    "Pow": lambda node, x, exponent: np.power(x, exponent).astype(x.dtype),
    "Range": _range,
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": lambda node, x, shape: x.reshape(target_shape(node, x.shape, shape)),
    "Shape": lambda node, x: np.array(x.shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64),
    "Size": lambda node, x: np.array(math.prod(x.shape), np.int64),
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _plain(np.sqrt),
    "Squeeze": lambda node, x, axes=None: x.reshape(squeezed(node, x.shape, axes)),
    "Sub": _plain(np.subtract),
    "Transpose": lambda node, x: np.transpose(x, node.attributes.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _plain(np.where),
}
OF_SHAPE = ("Shape", "Size")  # these know their result for a tensor without values, too


def compute(node: Node, sources: list[Any]) -> list[Array]:
    """The node's results. ValueError, or what NumPy raises, for what cannot be computed."""
    with np.errstate(all="ignore"):
        results = OPERATORS[node.operator](node, *sources)
    return [np.asarray(result) for result in (results if isinstance(results, list) else [results])]
