"""From a Module to an ONNX file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycnn._core import cpu_info
from pycnn._modes import evaluation
from pycnn.nn import Module
from pycnn.onnx.emitter import Emitter, Weight
from pycnn.onnx.model_file import check_path, onnx_package
from pycnn.onnx.roles import METADATA, describe
from pycnn.parameter import Parameter
from pycnn.serialization import replacing
from pycnn.tracing import Tensor, Tracer, flatten_results

_MOST_BYTES = 2**31 - 1  # of a protocol buffer


@dataclass
class Operation:
    """A call of a method of `Graph`."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    result: int


class _Recorder(Tracer):
    """A tracer that keeps what it is told."""

    def __init__(self, model: Module) -> None:
        super().__init__("float32")
        self.operations: list[Operation] = []
        self.buffers = {id(buffer) for buffer in model.buffers() if buffer.dtype == np.float32}

    def apply(self, method: str, *args: Any, **kwargs: Any) -> Tensor:
        result = super().apply(method, *args, **kwargs)
        self.operations.append(Operation(method, args, kwargs, result.value))
        return result

    def source(self, operand: Any, name: str = "operand") -> int:
        # A buffer among operands keeps its name; a plain Tracer takes a copy of the numbers.
        return self.state(operand) if id(operand) in self.buffers else super().source(operand, name)


def save(model: Module, path: str | os.PathLike[str], input_shape: Any) -> None:
    """Writes the network as it computes in evaluation mode.

    Weights stand in the file under their names in `state_dict`. The size of the batch is left open if the network takes
    batches of other sizes, with the same operations; image sizes are those of input_shape. The file appears in one go.

    Args:
        model: what to write, of float32.
        path: name of the file, ending in .onnx.
        input_shape: (n, c, h, w), or whatever shape `forward` takes; for several inputs a list of shapes.

    Raises:
        ImportError: the onnx package is missing. OSError: the file cannot be written.
        TypeError, ValueError: arguments that do not fit, or an operation that ONNX cannot say.
    """
    target = check_path(path)
    if not isinstance(model, Module):
        raise TypeError(f"model: got {type(model).__name__}, expected pycnn.nn.Module")
    if str(model.dtype or "float32") != "float32":
        raise TypeError(f"model: got {model.dtype}, expected float32: model.float() makes it so")
    onnx = onnx_package()
    with evaluation(model):
        recorder, results = _record(model, _shapes(input_shape))
        file = _write(onnx, model, recorder, results, _with_another_batch(model, recorder))
    if file.ByteSize() > _MOST_BYTES:
        raise ValueError(f"model: takes {file.ByteSize():,} bytes, expected at most {_MOST_BYTES:,} in an ONNX file")
    onnx.checker.check_model(file, full_check=True)
    with replacing(target) as stream:
        stream.write(file.SerializeToString())


def _shapes(input_shape: Any) -> list[tuple[int, ...]]:
    if not isinstance(input_shape, (tuple, list)) or not input_shape:
        raise TypeError(f"input_shape: got {input_shape!r}, expected a shape as (n, c, h, w)")
    several = isinstance(input_shape[0], (tuple, list))
    shapes = [tuple(shape) for shape in input_shape] if several else [tuple(input_shape)]
    for shape in shapes:
        if not all(isinstance(size, int) and size > 0 for size in shape):
            raise ValueError(f"input_shape: got {shape}, expected sizes from 1 up")
    return shapes


def _record(model: Module, shapes: list[tuple[int, ...]]) -> tuple[_Recorder, list[Tensor]]:
    recorder = _Recorder(model)
    names = model._argument_names(len(shapes))
    inputs = [recorder.input(name, shape) for name, shape in zip(names, shapes, strict=True)]
    results, _ = flatten_results(model.forward(*inputs))
    return recorder, results


def _with_another_batch(model: Module, recorder: _Recorder) -> _Recorder | None:
    """What the network does with a larger batch, or None if it does something else, or nothing."""
    shapes = [recorder.graph.shape(value) for _, value, _ in recorder.inputs]
    if any(shape[:1] != shapes[0][:1] or not shape for shape in shapes):
        return None
    try:
        other, _ = _record(model, [(shape[0] + 1, *shape[1:]) for shape in shapes])
    except (TypeError, ValueError):
        return None
    same = [o.method for o in other.operations] == [o.method for o in recorder.operations]
    return other if same else None


def _write(onnx: Any, model: Module, recorder: _Recorder, results: list[Tensor], other: _Recorder | None) -> Any:
    emitter = Emitter(onnx, recorder.graph, _weights(model, recorder))
    if other is not None:
        emitter.compare(other.graph, {value: data for value, data, _, _ in other.bindings.values()})
    emitter.begin(recorder.inputs, [tensor.value for tensor in results])
    for i, operation in enumerate(recorder.operations):
        twin = other.operations[i] if other else None
        if twin is not None and not emitter.agree(operation, twin):
            return _write(onnx, model, recorder, results, None)
        emitter.emit(operation)
    graph = emitter.end(type(model).__name__)
    file = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", emitter.opset)],
        ir_version=emitter.ir_version,
        producer_name="pycnn",
        producer_version=cpu_info()["version"],
    )
    counters = {name: int(b) for name, b in model.named_buffers() if b.shape == () and b.dtype.kind == "i"}
    entry = file.metadata_props.add()
    entry.key, entry.value = METADATA, describe(emitter.parameters, emitter.buffers, counters)
    return file


def _weights(model: Module, recorder: _Recorder) -> dict[int, Weight]:
    """What the arrays of the graph are, by their values."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    names.update({id(buffer): name for name, buffer in model.named_buffers()})
    return {
        value: Weight(names.get(id(owner), ""), data, isinstance(owner, Parameter))
        for value, data, _, owner in recorder.bindings.values()
    }
