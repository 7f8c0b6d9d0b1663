"""Patterns of several nodes that are one operation of pycnn. `fuse` puts the one in the place of the several."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn.onnx.model_file import ModelFile, Node


def fuse(file: ModelFile) -> None:
    """Rewrites `file.nodes`."""
    graph = _Graph(file)
    for node in list(file.nodes):
        for pattern in (_gelu, _softplus, _padded_convolution):
            pattern(graph, node)
    file.nodes[:] = [node for node in file.nodes if id(node) not in graph.removed]


class _Graph:
    """Who makes a value, and who takes it."""

    def __init__(self, file: ModelFile) -> None:
        self.arrays = file.arrays
        self.outputs = set(file.outputs)
        self.makers = {result: node for node in file.nodes for result in node.results if result}
        self.takers: dict[str, list[Node]] = {}
        for node in file.nodes:
            for source in node.sources:
                self.takers.setdefault(source, []).append(node)
        self.removed: set[int] = set()

    def maker(self, name: str, *operators: str) -> Node | None:
        node = self.makers.get(name)
        return node if node is not None and node.operator in operators and id(node) not in self.removed else None

    def only_taker(self, node: Node) -> Node | None:
        """The one node that takes this node's result, if nothing else does."""
        result = node.results[0]
        takers = self.takers.get(result, [])
        return takers[0] if len(takers) == 1 and result not in self.outputs else None

    def number(self, name: str) -> float | None:
        array = self.arrays.get(name)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def is_number(self, name: str, wanted: float) -> bool:
        number = self.number(name)
        return number is not None and math.isclose(number, wanted, rel_tol=1e-5)

    def scaled(self, name: str) -> tuple[str, float]:
        """The value, and the number, whose product this is."""
        node = self.maker(name, "Mul", "Div")
        if node is None:
            return name, 1.0
        left, right = (self.number(source) for source in node.sources)
        if right:
            return node.sources[0], 1.0 / right if node.operator == "Div" else right
        if left and node.operator == "Mul":
            return node.sources[1], left
        return name, 1.0

    def replace(self, last: Node, operator: str, sources: list[str], attributes: dict[str, Any]) -> None:
        """Makes the last node of a pattern the one operation; the others go if nobody else takes their results."""
        former = last.sources
        last.operator, last.sources, last.attributes = operator, sources, attributes
        for source in sources:
            self.takers.setdefault(source, []).append(last)
        for source in former:
            self._release(source, last)

    def _release(self, name: str, taker: Node) -> None:
        takers = self.takers.get(name, [])
        if taker in takers:
            takers.remove(taker)
        maker = self.makers.get(name)
        if maker is None or takers or name in self.outputs or id(maker) in self.removed:
            return
        self.removed.add(id(maker))
        for source in maker.sources:
            self._release(source, maker)


def _gelu(graph: _Graph, node: Node) -> None:
    """x (erf(x / sqrt 2) + 1) / 2, the factors in any order."""
    if node.operator != "Erf":
        return
    x, factor = graph.scaled(node.sources[0])
    last = graph.only_taker(node)
    if not math.isclose(factor, math.sqrt(0.5), rel_tol=1e-5) or last is None or last.operator != "Add":
        return
    one = last.sources[1] if last.sources[0] == node.results[0] else last.sources[0]
    if not graph.is_number(one, 1.0):
        return
    factors, number = 0, 1.0
    while factors != 1 or not math.isclose(number, 0.5, rel_tol=1e-5):
        former, last = last, graph.only_taker(last)
        if last is None or last.operator not in ("Mul", "Div") or factors > 1:
            return
        right = last.sources[0] == former.results[0]
        other = last.sources[1 if right else 0]
        constant = graph.number(other)
        if last.operator == "Div":
            if not right or not constant:
                return
            number /= constant
        elif constant is not None:
            number *= constant
        else:
            base, factor = (other, 1.0) if other == x else graph.scaled(other)
            if base != x:
                return
            factors, number = factors + 1, number * factor
    graph.replace(last, "Gelu", [x], {})


def _softplus(graph: _Graph, node: Node) -> None:
    """x where beta x > threshold, log(1 + exp(beta x)) / beta elsewhere."""
    if node.operator != "Where":
        return
    condition = graph.maker(node.sources[0], "Greater")
    x = node.sources[1]
    inner, factor = graph.scaled(node.sources[2])
    softplus = graph.maker(inner, "Softplus")
    if condition is None or softplus is None:
        return
    threshold = graph.number(condition.sources[1])
    beta = graph.scaled(condition.sources[0])
    if threshold is None or beta[0] != x or graph.scaled(softplus.sources[0]) != beta:
        return
    if not math.isclose(factor * beta[1], 1.0, rel_tol=1e-5):
        return
    graph.replace(node, "Softplus", [x], {"beta": beta[1], "threshold": threshold})


def _padded_convolution(graph: _Graph, node: Node) -> None:
    """Zeros around the images of a convolution become its own padding."""
    if node.operator != "Conv" or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        return
    pad = graph.maker(node.sources[0], "Pad")
    if pad is None or pad.attributes.get("mode", "constant") != "constant" or graph.only_taker(pad) is not node:
        return
    given: list[Any] = [graph.arrays.get(source) for source in pad.sources[1:] if source]
    if len(given) > 2 or any(array is None for array in given):
        return
    given += [pad.attributes.get(name, 0) for name in ("pads", "value")[len(given) :]]
    sides, value = [int(side) for side in np.ravel(given[0])], given[1]
    if len(sides) != 8 or np.any(value) or min(sides) < 0 or any(sides[i] for i in (0, 1, 4, 5)):
        return
    own = node.attributes.get("pads", [0] * 4)
    both = [a + b for a, b in zip(own, sides[2:4] + sides[6:8], strict=True)]
    graph.replace(node, "Conv", [pad.sources[0], *node.sources[1:]], {**node.attributes, "pads": both})
