"""From an ONNX file to a Module."""

from __future__ import annotations

import os
from typing import Any

from pycnn.onnx import known, roles
from pycnn.onnx.fusion import fuse
from pycnn.onnx.model_file import ModelFile, Node, read
from pycnn.onnx.module import OnnxModule
from pycnn.onnx.operators import OPERATORS

# What leaves an initializer's numbers as they are: the result goes by the initializer's name. That of an Identity has a
# name of its own: PyTorch's exporter writes initializers of equal numbers once.
_SHAPERS = ("Cast", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def load(path: str | os.PathLike[str]) -> OnnxModule:
    """The network in an ONNX file, ready to run, and to train after `model.train()`.

    It computes in float32; floats of other widths in the file are converted. Weights that lie beside the file (external
    data) are taken from its own folder only.

    Args:
        path: name of the file, ending in .onnx.

    Returns:
        A Module in evaluation mode, as the file's networks are meant; parameters by the names of the initializers.

    Raises:
        ImportError: the onnx package is missing. OSError: the file cannot be read. FormatError: it is damaged.
        ValueError: another ending, or the file needs what pycnn does not have; the message names the node and its
            operator.
    """
    file = read(path)
    initializers = _fold(file)
    fuse(file)
    _refuse_unknown(file)
    model = OnnxModule(file, roles.assign(file, initializers))
    model.eval()
    _try(file, model)
    return model


def _refuse_unknown(file: ModelFile) -> None:
    for node in file.nodes:
        if node.operator not in OPERATORS and node.operator not in known.OPERATORS:
            raise ValueError(f"{file.path}: {node}: pycnn has no such operator; expected one of those in docs/onnx.md")
    if not file.inputs:
        raise ValueError(f"{file.path}: got a graph without inputs, expected at least one")


def _fold(file: ModelFile) -> dict[str, str]:
    """Computes the nodes whose sources are all constant. Returns the names of initializers by those of arrays."""
    names = {name: name for name in file.arrays}
    left = []
    for node in file.nodes:
        if node.operator not in known.OPERATORS or any(s and s not in file.arrays for s in node.sources):
            left.append(node)
            continue
        results = _computed(file, node)
        file.arrays.update(zip(node.results, results, strict=False))
        if node.operator in _SHAPERS and node.sources[0] in names:
            names[node.results[0]] = names[node.sources[0]]
        elif node.operator == "Identity" and node.sources[0] in names:
            names[node.results[0]] = node.results[0]
    file.nodes[:] = left
    return names


def _computed(file: ModelFile, node: Node) -> list[Any]:
    sources = [file.arrays[source] if source else None for source in node.sources]
    try:
        return known.compute(node, sources)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{file.path}: {node}: {error}") from error


def _try(file: ModelFile, model: OnnxModule) -> None:
    """Traces the network once if the file tells the sizes, so that what does not work is refused now."""
    failure = None
    for batch in (1, 2):  # where the file leaves it open; a network may take even ones only
        shapes = [_filled(item.shape, batch) for item in file.inputs]
        sizes = tuple(shape for shape in shapes if shape is not None)
        if len(sizes) < len(shapes):
            return
        try:
            model.trace(sizes)
            return
        except ValueError as error:
            failure = failure or error
    raise ValueError(f"{file.path}: {failure}") from failure


def _filled(shape: tuple[int | None, ...] | None, batch: int) -> tuple[int, ...] | None:
    """The shape, with this size of the batch if none is said, or None if more is missing."""
    if shape is None or None in shape[1:]:
        return None
    return tuple(batch if size is None else size for size in shape)
