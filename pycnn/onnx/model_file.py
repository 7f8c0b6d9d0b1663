"""ONNX files as plain Python: nodes, and arrays by name. Protocol buffers and checks are the onnx package's."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pycnn.errors import FormatError
from pycnn.parameter import Array

OLDEST_OPSET = 6  # before, operators said by attributes whether their operands broadcast

# Types of tensors by their number in the file; those of floats that become float32.
_FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}


def onnx_package() -> Any:
    """The onnx package. ImportError, saying what to install, without it."""
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError("ONNX files need the onnx package: pip install pycnn[onnx]") from error


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path, if its name says ONNX."""
    checked = Path(path)
    if checked.suffix != ".onnx":
        raise ValueError(f"path: got {str(path)!r}, expected a name that ends in .onnx")
    return checked


@dataclass(eq=False)
class Node:
    """One operation of the file. A source that is left out is the empty name, as in the file."""

    operator: str
    name: str
    sources: list[str]
    results: list[str]
    attributes: dict[str, Any]
    opset: int  # the version of the operators that the file speaks

    def __str__(self) -> str:
        return f"node {self.name or self.results[0]!r} ({self.operator})"


@dataclass
class Input:
    """What the file says of an input: its name, and its sizes as far as they are known."""

    name: str
    shape: tuple[int | None, ...] | None


@dataclass
class ModelFile:
    path: Path
    nodes: list[Node]
    inputs: list[Input]
    outputs: list[str]
    arrays: dict[str, Array]  # the initializers
    metadata: dict[str, str] = field(default_factory=dict)


def read(path: str | os.PathLike[str]) -> ModelFile:
    """Reads and checks a file.

    Raises:
        ImportError: the onnx package is missing. OSError: the file cannot be read.
        FormatError: it is damaged. ValueError: it needs what pycnn does not have.
    """
    source = check_path(path)
    onnx = onnx_package()
    model = _checked(onnx, source)
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise ValueError(f"{source}: got operators of version {opset}, expected {OLDEST_OPSET} or newer")
    graph = model.graph
    if graph.sparse_initializer:
        raise ValueError(f"{source}: got the sparse tensor {graph.sparse_initializer[0].values.name!r}, expected dense")
    arrays = {tensor.name: _array(onnx, source, tensor) for tensor in graph.initializer}
    return ModelFile(
        source,
        [_node(onnx, source, item, opset) for item in graph.node],
        [_input(source, item) for item in graph.input if item.name not in arrays],
        [item.name for item in graph.output],
        arrays,
        {item.key: item.value for item in model.metadata_props},
    )


def _checked(onnx: Any, source: Path) -> Any:
    """The model, found sound by the onnx package, with functions of its own expanded."""
    content = source.read_bytes()
    protobuf = importlib.import_module("google.protobuf.message")
    try:
        model = onnx.load_model_from_string(content)
        if not model.HasField("graph") or not model.opset_import:
            raise FormatError(f"{source}: no ONNX model: it holds no graph")
        _read_external(onnx, source, model.graph)
        for item in model.graph.output:  # the checker insists on shapes that pycnn does not ask for
            if not item.type.tensor_type.HasField("shape"):
                item.type.tensor_type.shape.SetInParent()
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        onnx.checker.check_model(model)
    except (protobuf.DecodeError, protobuf.EncodeError, onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise FormatError(f"{source}: no sound ONNX model: {_first_line(error)}") from error
    return model


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _read_external(onnx: Any, source: Path, graph: Any) -> None:
    """Takes in the tensors that lie in other files, which must be in the model's own folder or below."""
    folder = source.parent.resolve()
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {item.key: item.value for item in tensor.external_data}
        location = entries.get("location", "")
        target = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not target.is_relative_to(folder):
            raise FormatError(f"{source}: tensor {tensor.name!r} lies in {location!r}, outside the model's folder")
        if not target.is_file():
            raise FormatError(f"{source}: tensor {tensor.name!r} lies in {location!r}, which is not there")
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", target.stat().st_size - offset))
        except ValueError as error:
            raise FormatError(f"{source}: tensor {tensor.name!r}: {error}") from error
        if offset < 0 or length < 0 or offset + length > target.stat().st_size:
            raise FormatError(
                f"{source}: tensor {tensor.name!r} is said to take bytes {offset} to {offset + length} of "
                f"{location!r}, which has {target.stat().st_size}"
            )
        with target.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _array(onnx: Any, source: Path, tensor: Any) -> Array:
    """The tensor's values: floats of any width as float32, others as they are."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise FormatError(f"{source}: tensor {tensor.name!r} lies in another file, which only initializers may")
    if any(size < 0 for size in tensor.dims):
        raise FormatError(f"{source}: tensor {tensor.name!r} has sizes {list(tensor.dims)}")
    try:
        array = np.array(onnx.numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise FormatError(f"{source}: tensor {tensor.name!r}: {_first_line(error)}") from error
    if tensor.data_type not in _FLOATS or array.dtype == np.float32:
        return array
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    if not np.array_equal(np.isinf(narrow), np.isinf(array.astype(np.float64))):
        raise ValueError(f"{source}: tensor {tensor.name!r} holds {array.dtype} values beyond the range of float32")
    return narrow


def _node(onnx: Any, source: Path, item: Any, opset: int) -> Node:
    attributes = {a.name: _attribute(onnx, source, a) for a in item.attribute}
    node = Node(item.op_type, item.name, list(item.input), list(item.output), attributes, opset)
    if item.domain not in ("", "ai.onnx"):
        raise ValueError(f"{source}: {node} is of the operator set {item.domain!r}, expected ONNX's own operators")
    return node


def _attribute(onnx: Any, source: Path, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return _array(onnx, source, value)
    if isinstance(value, float):
        return float(str(np.float32(value)))  # what was meant: 1e-5, not the float32 next to it
    return value


def _input(source: Path, item: Any) -> Input:
    kind = item.type.tensor_type
    if not item.type.HasField("tensor_type") or kind.elem_type not in _FLOATS:
        raise ValueError(f"{source}: input {item.name!r} is no tensor of floats")
    if not kind.HasField("shape"):
        return Input(item.name, None)
    return Input(item.name, tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim))
