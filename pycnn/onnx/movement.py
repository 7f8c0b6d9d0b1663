"""ONNX operators that only move values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.onnx import known
from pycnn.onnx.model_file import Node
from pycnn.parameter import Array
from pycnn.tracing import Tensor

_MOST_PIECES = 32  # tensors that one concatenation joins
_MOST_SLICES = 4096  # that an operation may be taken apart into


def _known(value: Any, name: str) -> Array:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name}: got a computed tensor, expected constants")
    return value


def _reshape(node: Node, x: Any, shape: Any = None) -> Tensor:
    wanted = np.asarray(node.attributes["shape"]) if shape is None else _known(shape, "shape")
    return x.reshape(known.target_shape(node, x.shape, wanted))


def _flatten(node: Node, x: Any) -> Tensor:
    axis = node.attributes.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _squeeze(node: Node, x: Any, axes: Any = None) -> Tensor:
    return x.reshape(known.squeezed(node, x.shape, axes))


def _unsqueeze(node: Node, x: Any, axes: Any = None) -> Tensor:
    return x.reshape(known.unsqueezed(x.shape, node.attributes["axes"] if axes is None else [int(a) for a in axes]))


def _concat(node: Node, *sources: Any) -> Tensor:
    axis = node.attributes["axis"]
    return concat(list(sources), axis)


def concat(sources: list[Any], axis: int) -> Tensor:
    """Joins any number of tensors: the engine takes a limited number at once."""
    while len(sources) > 1:
        sources = [_join(sources[i : i + _MOST_PIECES], axis) for i in range(0, len(sources), _MOST_PIECES)]
    return sources[0]


def _join(sources: list[Any], axis: int) -> Tensor:
    return sources[0] if len(sources) == 1 else F.concat(sources, axis)


def _slice(node: Node, x: Any, *arguments: Any) -> Tensor:
    constants = [None if a is None else _known(a, "starts, ends, axes, steps") for a in arguments]
    return x[known.slices(node, x.shape, *constants)]


def _split(node: Node, x: Any, source: Any = None) -> list[Tensor]:
    axis = node.attributes.get("axis", 0) % x.ndim
    sizes = known.section_sizes(node, x.shape[axis], None if source is None else _known(source, "split"))
    ends = np.cumsum(sizes)
    return [_part(x, axis, int(end) - size, int(end)) for size, end in zip(sizes, ends, strict=True)]


def _part(x: Tensor, axis: int, first: int, end: int) -> Tensor:
    return x[(slice(None),) * axis + (slice(first, end),)]


def _gather(node: Node, x: Any, indices: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise ValueError("data: got a constant, expected a computed tensor")
    axis = node.attributes.get("axis", 0) % x.ndim
    picked = _known(indices, "indices")
    size = x.shape[axis]
    flat = [int(i) for i in picked.ravel()]
    if any(not -size <= i < size for i in flat):
        raise ValueError(f"indices: got {flat}, expected indices of {size} elements")
    _check_slices("indices", len(flat))
    pieces = [_part(x, axis, i % size, i % size + 1) for i in flat]
    return concat(pieces, axis).reshape((*x.shape[:axis], *picked.shape, *x.shape[axis + 1 :]))


def _check_slices(name: str, count: int) -> None:
    if not 0 < count <= _MOST_SLICES:
        raise ValueError(f"{name}: takes {count} slices to compute here, expected 1 to {_MOST_SLICES}")


def _transpose(node: Node, x: Any) -> Tensor:
    return permute(x, node.attributes.get("perm", range(x.ndim)[::-1]))


def permute(x: Tensor, order: Sequence[int]) -> Tensor:
    """The axes in this order. The engine has no such operation: an axis moves in slices that are joined again."""
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"perm: got {list(order)}, expected an order of {x.ndim} axes")
    order = list(order)
    current = list(range(x.ndim))
    while current != order:
        # Whichever move brings an axis to its place and costs the fewest slices.
        moves = [(axis, place) for axis in current for place in range(x.ndim) if _improves(current, order, axis, place)]
        axis, place = min(moves, key=lambda move: x.shape[current.index(move[0])])
        at = current.index(axis)
        x = _move(x, at, place)
        current.insert(place, current.pop(at))
    return x


def _improves(current: list[int], order: list[int], axis: int, place: int) -> bool:
    """Whether more pairs of axes stand in the right order afterwards."""
    moved = [a for a in current if a != axis]
    moved.insert(place, axis)
    return _disorder(moved, order) < _disorder(current, order)


def _disorder(axes: list[int], order: list[int]) -> int:
    ranks = [order.index(axis) for axis in axes]
    return sum(ranks[i] > ranks[j] for i in range(len(ranks)) for j in range(i + 1, len(ranks)))


def _move(x: Tensor, at: int, place: int) -> Tensor:
    rest = [size for i, size in enumerate(x.shape) if i != at]
    one = (*rest[:place], 1, *rest[place:])
    if x.shape[at] == 1:
        return x.reshape(one)
    _check_slices("perm", x.shape[at])
    return concat([_part(x, at, i, i + 1).reshape(one) for i in range(x.shape[at])], place)


def _depth_to_space(node: Node, x: Any) -> Tensor:
    n, c, h, w = x.shape
    block = node.attributes["blocksize"]
    inner = c // (block * block)
    if node.attributes.get("mode", "DCR") == "DCR":
        y = permute(x.reshape((n, block, block, inner, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = permute(x.reshape((n, inner, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    return y.reshape((n, inner, h * block, w * block))


def _space_to_depth(node: Node, x: Any) -> Tensor:
    n, c, h, w = x.shape
    block = node.attributes["blocksize"]
    order = (0, 1, 3, 5, 2, 4) if node.attributes.get("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    y = permute(x.reshape((n, c, h // block, block, w // block, block)), order)
    return y.reshape((n, c * block * block, h // block, w // block))


def _expand(node: Node, x: Any, shape: Any) -> Tensor:
    sizes = np.broadcast_shapes(x.shape, tuple(int(size) for size in np.ravel(_known(shape, "shape"))))
    return x if sizes == x.shape else x * np.ones(sizes, np.float32)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Reshape": _reshape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
