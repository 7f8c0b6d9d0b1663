"""Compiled inference: a network with its weights as they are now, folded, fused, packed and planned once."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pycnn._arguments import integer
from pycnn._core import FrozenPlan
from pycnn._modes import evaluation
from pycnn.errors import FormatError
from pycnn.nn.module import Module
from pycnn.parameter import Array
from pycnn.serialization import replacing
from pycnn.tracing import Tracer, list_outputs


class Plan:
    """A network compiled for inference: `y = plan(x)`. Made by `pycnn.compile` or `pycnn.load`.

    A plan is immutable and may be called by several threads at once; each run at the same time takes memory of its own,
    which is kept for later runs.

    Attributes:
        input_shapes, output_shapes: of each input and output, (n, ...). dtype: what it computes in.
    """

    def __init__(self, frozen: FrozenPlan, container: Any) -> None:
        self._frozen = frozen
        self._container = container
        self.dtype = np.dtype(frozen.dtype)

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        return list(self._frozen.input_shapes)

    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        return list(self._frozen.output_shapes)

    @property
    def memory(self) -> dict[str, int]:
        """Bytes by kind: 'constants' (weights as they are used; for the model file also as they were given, where
        Winograd's algorithm uses another form) and 'tables' (what else the plan is made of); and of each simultaneous
        run 'activations', 'workspace' and 'arrays': a copy of the inputs, for those that do not lie as the engine reads
        them, and the last two outputs, if they are large, whose memory is used again."""
        return dict(self._frozen.bytes())

    @property
    def memory_bytes(self) -> int:
        """Bytes of the plan and one run of it: the sum of `memory`."""
        return sum(self.memory.values())

    def __call__(self, *inputs: Array) -> Any:
        """Runs the network.

        Args:
            inputs: one array of the compiled shape and dtype per input. An array (n, c, h, w) that lies channels-last
                is read in place; any other layout is converted.

        Returns:
            A new array, or as many as the network's `forward` returns. Images lie channels-last.

        Raises:
            TypeError, ValueError: an input of the wrong number, dtype or shape.
        """
        results = self._frozen.run(inputs)
        return results[0] if self._container is None else self._container(results)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan to a model file, for `pycnn.load` and for C programs: the folded network and its weights, for
        any machine and any number of threads. docs/model-file.md has the layout; any reader of safetensors can open the
        weights.

        The file appears in one go: whatever interrupts the writing, there is the old one or the new one.

        Args:
            path: name of the file; .cnn is usual.

        Raises:
            OSError: it cannot be written. RuntimeError: the plan is `final`.
        """
        content = self._frozen.save()
        with replacing(Path(path)) as file:
            file.write(content)

    def __repr__(self) -> str:
        shapes = ", ".join(map(str, self.input_shapes))
        return f"Plan({shapes} -> {', '.join(map(str, self.output_shapes))}, {self.memory_bytes:,} bytes)"


def _input_shapes(input_shape: Any) -> tuple[tuple[int, ...], ...]:
    """One shape, or a sequence of them."""
    if not isinstance(input_shape, Sequence) or not len(input_shape):
        got = f"an array of shape {input_shape.shape}" if hasattr(input_shape, "shape") else repr(input_shape)
        raise TypeError(f"input_shape: got {got}, expected a shape (n, ...), or a list of shapes")
    several = all(isinstance(item, Sequence) for item in input_shape)
    shapes = input_shape if several else [input_shape]
    return tuple(tuple(integer(size, "input_shape", 0) for size in shape) for shape in shapes)


def compile(
    model: Module, input_shape: Any, threads: int | None = None, winograd: bool = True, *, final: bool = False
) -> Plan:
    """Compiles a network for inference.

    The network is traced in evaluation mode; batch normalizations are folded into the layers before them (Jacob et al.,
    2018), activations and residual additions are computed where a convolution stores its result, weights are packed as
    the kernels read them, and all memory is planned. The plan is a snapshot: later changes of the model do not reach
    it.

    Args:
        model: the network.
        input_shape: (n, c, h, w), or what the network takes; a list of shapes for several inputs.
        threads: for its runs; None: `pycnn.get_num_threads()` at the time of each.
        winograd: allow Winograd's algorithm for 3x3 convolutions: faster, with a relative rounding error of up to 3e-6
            instead of about 1e-6.
        final: the plan will not be saved, so that it keeps one copy of each weight also where Winograd's algorithm uses
            another form of it.

    Returns:
        The plan.

    Raises:
        TypeError, ValueError: an argument is of another kind or out of range, or the network does not take the shape.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: got {type(model).__name__}, expected pycnn.nn.Module")
    shapes = _input_shapes(input_shape)
    wanted = 0 if threads is None else integer(threads, "threads", 1)
    dtype = "float32" if model.dtype is None else str(model.dtype)
    with evaluation(model):
        tracer, results = model.trace(shapes, dtype)
    outputs, container = list_outputs(tracer, results)
    name_values(model, tracer, outputs)
    if container is not None:
        tracer.graph.describe(json.dumps({"container": "list" if issubclass(container, list) else "tuple"}))
    constants = [(value, data) for value, data, _, _ in tracer.bindings.values()]
    return Plan(FrozenPlan.freeze(tracer.graph, constants, bool(winograd), wanted, final=bool(final)), container)


def name_values(model: Module, tracer: Tracer, outputs: list[int]) -> None:
    """Names inputs as `forward` does, weights as the state dict does, outputs y or y0, y1, ..."""
    for name, value, _ in tracer.inputs:
        tracer.graph.name(value, name)
    owners = [*model.named_parameters(), *model.named_buffers()]
    for name, owner in owners:
        if id(owner) in tracer.bindings:
            tracer.graph.name(tracer.bindings[id(owner)][0], name)
    for i, value in enumerate(outputs):
        tracer.graph.name(value, "y" if len(outputs) == 1 else f"y{i}")


def load(
    path: str | os.PathLike[str], threads: int | None = None, winograd: bool = True, *, final: bool = False
) -> Plan:
    """Reads a model file, as `Plan.save` or a C program wrote it.

    Args:
        path: name of the file.
        threads, winograd, final: as `pycnn.compile` has them. With the `winograd` of the plan that was saved, and on
            the same instruction set, the outputs are the same to the bit.

    Returns:
        The plan. Several outputs come as `forward` returned them, a tuple or a list.

    Raises:
        FormatError: the file is damaged, or no model file. OSError: it cannot be read. TypeError, ValueError: threads
        is no positive number.
    """
    wanted = 0 if threads is None else integer(threads, "threads", 1)
    content = Path(path).read_bytes()
    try:
        frozen = FrozenPlan.load(content, bool(winograd), wanted, final=bool(final))
    except FormatError as error:
        raise FormatError(f"{os.fspath(path)}: {error}") from None
    return Plan(frozen, _container(frozen))


def _container(frozen: FrozenPlan) -> Any:
    """What puts the results in their places, as the file's description says it; a C program may have left none."""
    try:
        kind = json.loads(frozen.description)["container"]
    except (ValueError, KeyError, TypeError):
        kind = "tuple" if len(frozen.output_shapes) > 1 else None
    return {"tuple": tuple, "list": list}.get(kind)
