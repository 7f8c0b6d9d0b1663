"""A network made of the nodes of an ONNX file."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn.nn import Module
from pycnn.onnx import known
from pycnn.onnx.model_file import ModelFile, Node
from pycnn.onnx.operators import OF_MODE, OPERATORS
from pycnn.onnx.roles import State
from pycnn.parameter import Array, Parameter
from pycnn.tracing import Tensor

_COUNTER = "num_batches_tracked"


def _found(values: dict[str, Any], name: str) -> Any:
    if name not in values:
        raise ValueError(f"value {name!r}: pycnn does not compute this result of its node; expected the first one only")
    return values[name]


class OnnxModule(Module):
    """The network in an ONNX file: `forward` runs its nodes, in their order, by operations of `pycnn.functional`.

    Parameters and buffers have the names that the file gives them. Sizes are those of the arrays that come in, so that
    batches of any size, and whatever images the nodes can take, go through one module.

    Attributes:
        input_names, output_names: as in the file.
        input_shapes: for each input its sizes, None where the file leaves one open; None altogether if it says nothing.
    """

    def __init__(self, file: ModelFile, state: State) -> None:
        super().__init__()
        self.input_names = [item.name for item in file.inputs]
        self.input_shapes = [item.shape for item in file.inputs]
        self.output_names = file.outputs
        self._nodes = file.nodes
        self._constants = state.constants
        self._weight_names = state.weights
        # Into the registries, not by attributes: names of the file may be those of methods.
        for name, array in state.parameters.items():
            self._parameters[name] = Parameter(array)
        for name, array in state.buffers.items():
            self._buffers[name] = np.array(array)
        self._changed()

    def _weights(self) -> list[Parameter]:
        return [self._parameters[name] for name in self._parameters if name in self._weight_names]

    def forward(self, *inputs: Any) -> Any:
        """One tensor per input of the file; returns its output, or a tuple of several."""
        if len(inputs) != len(self.input_names):
            raise TypeError(f"forward: got {len(inputs)} arguments, expected {', '.join(self.input_names)}")
        values: dict[str, Any] = {**self._constants, **self._buffers, **self._parameters}
        for name, shape, x in zip(self.input_names, self.input_shapes, inputs, strict=True):
            if shape is not None and x.ndim != len(shape):
                raise ValueError(f"{name}: got shape {x.shape}, expected {len(shape)} dimensions")
            values[name] = x
        for node in self._nodes:
            sources = [_found(values, source) if source else None for source in node.sources]
            if node.operator == "Reshape":
                sources[1:] = [self._rebatched(sources[0], shape, inputs[0]) for shape in sources[1:]]
            results = self._compute(node, sources)
            for name, result in zip(node.results, results, strict=False):
                values[name] = result
        outputs = [_found(values, name) for name in self.output_names]
        for name, output in zip(self.output_names, outputs, strict=True):
            if not isinstance(output, Tensor):
                raise ValueError(f"output {name!r} does not depend on the inputs; expected one that does")
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _compute(self, node: Node, sources: list[Any]) -> list[Any]:
        while sources and sources[-1] is None:
            sources.pop()
        try:
            has_values = all(isinstance(s, np.ndarray) for s in sources if s is not None)
            if node.operator in known.OPERATORS and (has_values or node.operator in known.OF_SHAPE):
                return list(known.compute(node, sources))
            if node.operator not in OPERATORS:
                raise ValueError("sources: got a computed tensor, expected constants")
            more: dict[str, Any] = {"training": self.training} if node.operator in OF_MODE else {}
            if node.operator == "BatchNormalization":
                more["counter"] = self._counter(node)
            results = OPERATORS[node.operator](node, *sources, **more)
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"{node}: {error}") from error
        return results if isinstance(results, list) else [results]

    def _counter(self, node: Node) -> Array | None:
        mean = node.sources[3]
        stem = mean.removesuffix("running_mean")
        return self._buffers.get(stem + _COUNTER) if stem != mean else None

    def _rebatched(self, x: Any, shape: Any, first_input: Tensor) -> Any:
        """The shape of a Reshape in a file for batches of one size, for the batch that came.

        Exporters write x.reshape(len(x), -1) as (1, -1) where they were shown a batch of one image."""
        declared = self.input_shapes[0]
        if not isinstance(shape, np.ndarray) or not declared or not shape.size:
            return shape
        if shape[0] == declared[0] and x.shape[:1] == first_input.shape[:1]:
            return np.concatenate([x.shape[:1], shape[1:]])
        return shape

    def _argument_names(self, count: int) -> list[str]:
        if count != len(self.input_names):
            raise TypeError(f"forward: got {count} arguments, expected {', '.join(self.input_names)}")
        return self.input_names

    def extra_repr(self) -> str:
        return f"{', '.join(self.input_names)} -> {', '.join(self.output_names)}, {len(self._nodes)} nodes"
