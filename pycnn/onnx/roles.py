"""Which arrays of a file are parameters, which are buffers, and which are mere constants.

Files do not say. The weights of a convolution or a matrix product are parameters. So is an initializer where another
operator has a place for weights, and one of several numbers that is added or multiplied; running statistics are
buffers. A file that `pycnn.onnx.save` wrote lists the names in its metadata, and the list holds.

Arrays are brought into the form in which pycnn's operations take them: matrices (out, in), slopes of PReLU (c).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pycnn.errors import FormatError
from pycnn.onnx.model_file import ModelFile, Node
from pycnn.parameter import Array

METADATA = "pycnn.state"  # JSON: {"parameters": [name], "buffers": [name], "counters": {name: int}}


def _as_it_is(node: Node, array: Array) -> Array:
    return array


def _transposed(node: Node, array: Array) -> Array:
    return array.T if array.ndim == 2 else array


def _gemm_weight(node: Node, array: Array) -> Array:
    return array if node.attributes.get("transB", 0) else _transposed(node, array)


def _gemm_bias(node: Node, array: Array) -> Array:
    return array.reshape(-1) if array.ndim == 2 and array.shape[0] == 1 else array


def _slope(node: Node, array: Array) -> Array:
    """One slope, or one for each place along a single axis, whose number of following axes is noted at the node."""
    long = [axis for axis, size in enumerate(array.shape) if size != 1]
    if len(long) > 1 or (not long and array.size != 1):
        return array
    if long:
        node.attributes["trailing_axes"] = array.ndim - 1 - long[0]
    return array.reshape(-1)


# Per operator and source: the role and the form.
_Form = Callable[[Node, Array], Array]
_PLACES: dict[str, dict[int, tuple[str, _Form]]] = {
    "BatchNormalization": {
        1: ("parameter", _as_it_is),
        2: ("parameter", _as_it_is),
        3: ("buffer", _as_it_is),
        4: ("buffer", _as_it_is),
    },
    "Gemm": {1: ("parameter", _gemm_weight), 2: ("parameter", _gemm_bias)},
    "MatMul": {1: ("parameter", _transposed)},
    "PRelu": {1: ("parameter", _slope)},
    **{
        operator: {1: ("parameter", _as_it_is), 2: ("parameter", _as_it_is)}
        for operator in ("Conv", "ConvTranspose", "GroupNormalization", "InstanceNormalization", "LayerNormalization")
    },
    **{operator: {i: ("operand", _as_it_is) for i in range(2)} for operator in ("Add", "Mul", "Sub")},
}
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass
class State:
    """Arrays by role and name; `weights`: the parameters that multiply in convolutions and matrix products."""

    parameters: dict[str, Array] = field(default_factory=dict)
    buffers: dict[str, Array] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)


def assign(file: ModelFile, initializers: dict[str, str]) -> State:
    """Sorts the arrays that nodes take, and points the nodes' sources at the result.

    Args:
        file: whose constant nodes are folded.
        initializers: for arrays that are initializers, or such in another shape: the initializer's name.
    """
    declared = _declared(file)
    state = State()
    taken: dict[str, tuple[str, bool]] = {}  # of parameters and buffers: the array, and whether it took another form
    constants: list[tuple[Node, int, Array]] = []
    for node in file.nodes:
        places = _PLACES.get(node.operator, {})
        for i, source in enumerate(node.sources):
            if source not in file.arrays:
                continue
            wanted, form = places.get(i, ("constant", _as_it_is))
            array = form(node, file.arrays[source])
            name = initializers.get(source, source)
            is_weight = i == 1 and node.operator in _PRODUCTS
            role = _role(wanted, name, is_weight or source in initializers, array, declared)
            if role == "constant":
                constants.append((node, i, array))
                continue
            origin = source, array is not file.arrays[source]
            if taken.get(name, origin) != origin:
                name = source
            if taken.setdefault(name, origin) != origin:
                raise ValueError(f"{file.path}: {node} takes {name!r} in another form than a node before it")
            (state.parameters if role == "parameter" else state.buffers)[name] = array
            node.sources[i] = name
            if role == "parameter" and is_weight:
                state.weights.add(name)
    for node, i, array in constants:
        source = node.sources[i]
        if source in taken or array is not file.arrays[source]:
            source = f"{source} of {node}"
        state.constants[source] = array
        node.sources[i] = source
    for name, count in declared["counters"].items() if declared else ():
        state.buffers[name] = np.array(count, np.int64)
    return state


def _role(role: str, name: str, is_own: bool, array: Array, declared: dict[str, Any] | None) -> str:
    if array.dtype.kind != "f":
        return "constant"
    if declared is not None:
        kinds = {"parameter": declared["parameters"], "buffer": declared["buffers"]}
        return next((kind for kind, names in kinds.items() if name in names), "constant")
    if role == "operand":
        return "parameter" if is_own and array.size > 1 else "constant"
    return role if is_own else "constant"


def _declared(file: ModelFile) -> dict[str, Any] | None:
    text = file.metadata.get(METADATA)
    if text is None:
        return None
    try:
        found = json.loads(text)
        lists = {key: {str(name) for name in found[key]} for key in ("parameters", "buffers")}
        counters = {str(name): int(count) for name, count in found["counters"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"{file.path}: damaged metadata {METADATA!r}: {text[:200]}") from error
    return {**lists, "counters": counters}


def describe(parameters: list[str], buffers: list[str], counters: dict[str, int]) -> str:
    """The metadata for these names."""
    return json.dumps({"parameters": parameters, "buffers": buffers, "counters": counters})
