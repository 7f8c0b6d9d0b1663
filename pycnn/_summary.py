"""What a network consists of: shapes, parameters and multiply-accumulates of its layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycnn._modes import evaluation
from pycnn.nn import Conv2d, ConvTranspose2d, Linear, Module
from pycnn.parameter import Parameter
from pycnn.tracing import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One call of one layer."""

    name: str
    type: str
    output_shape: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """The table; `str` draws it.

    rows: the layers in the order of their calls, parameters where they first appear.
    parameters, trainable_parameters: of the whole model, shared ones counted once.
    macs: multiply-accumulates for one image.
    """

    model: str
    rows: tuple[Row, ...]
    parameters: int
    trainable_parameters: int
    macs: int

    def __str__(self) -> str:
        table = [("layer", "type", "output shape", "parameters", "MACs")]
        table += [(r.name, r.type, r.output_shape, f"{r.parameters:,}", f"{r.macs:,}") for r in self.rows]
        widths = [max(len(line[i]) for line in table) for i in range(5)]
        lines = []
        for line in table:
            cells = [text.ljust(widths[i]) if i < 3 else text.rjust(widths[i]) for i, text in enumerate(line)]
            lines.append("  ".join(cells))
        rule = "-" * len(lines[0])
        frozen = self.parameters - self.trainable_parameters
        return "\n".join(
            [
                self.model,
                rule,
                lines[0],
                rule,
                *lines[1:],
                rule,
                f"parameters: {self.parameters:,}" + (f" ({frozen:,} of them frozen)" if frozen else ""),
                f"MACs per image: {self.macs:,}",
            ]
        )


def summary(model: Module, input_shape: Sequence[Any]) -> Summary:
    """Layers with output shapes, parameters and MACs; nothing is computed.

    A plain convolution has N_in N_out K^2 + N_out parameters and K^2 N_in N_out H W MACs, H and W of its output (a
    transposed one: of its input); groups divide both. A linear layer has one MAC a weight. Other layers, and operations
    of `pycnn.functional` that no layer stands for, count as none.

    Args:
        model: the network.
        input_shape: (n, c, h, w), or (c, h, w) or (features,) for one; n does not count. For several inputs a list of
            such shapes.

    Raises:
        TypeError, ValueError: of another kind, or a shape that does not fit the network.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: got {type(model).__name__}, expected pycnn.nn.Module")
    with evaluation(model):
        tracer, _ = model.trace(batched(input_shape), str(model.dtype or "float32"))
    names = {id(module): name for name, module in model.named_modules()}
    seen: set[int] = set()
    rows = []
    for module, sources, result in tracer.records:
        own = _new_parameters(module, seen)
        if module._modules and not own:
            continue  # its layers have rows of their own
        kind = type(module).__name__
        count = sum(p.size for p in own)
        name = names.get(id(module)) or kind
        rows.append(Row(name, kind, _shapes(result), count, _macs(module, sources, result)))
    parameters = list(model.parameters())
    return Summary(
        type(model).__name__,
        tuple(rows),
        sum(p.size for p in parameters),
        sum(p.size for p in parameters if p.requires_grad),
        sum(row.macs for row in rows),
    )


def count_macs(model: Module, input_shape: Sequence[Any]) -> int:
    """Multiply-accumulates for one image, counted as `summary` does."""
    return summary(model, input_shape).macs


def batched(input_shape: Sequence[Any]) -> tuple[Shape, ...]:
    """One shape or a list of them, checked, with a batch of 1 put before shapes that have none."""
    if not isinstance(input_shape, (tuple, list)) or not input_shape:
        raise TypeError(f"input_shape: got {input_shape!r}, expected a shape as (n, c, h, w) or (c, h, w)")
    if isinstance(input_shape[0], (tuple, list)):
        return tuple(shape for item in input_shape for shape in batched(item))
    for size in input_shape:
        if not isinstance(size, int) or size < 0:
            raise ValueError(f"input_shape: got {tuple(input_shape)}, expected sizes from 0 up")
    shape = tuple(input_shape)
    return ((1, *shape) if len(shape) in (1, 3) else shape,)


def _new_parameters(module: Module, seen: set[int]) -> list[Parameter]:
    own = [p for p in module._parameters.values() if p is not None and id(p) not in seen]
    seen.update(map(id, own))
    return own


def _shapes(result: Any) -> str:
    if isinstance(result, Tensor):
        return str(result.shape)
    return ", ".join(str(tensor.shape) for tensor in result)


def _macs(module: Module, sources: tuple[Tensor, ...], result: Any) -> int:
    if isinstance(module, Conv2d):
        return int(module.weight.size * math.prod(result.shape[2:]))
    if isinstance(module, ConvTranspose2d):
        return int(module.weight.size * math.prod(sources[0].shape[2:]))
    if isinstance(module, Linear):
        return int(module.weight.size * math.prod(sources[0].shape[1:-1]))
    return 0
