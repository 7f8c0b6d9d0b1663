"""Penalties on the size of the weights, added to the loss.

They fall on the weights of convolutions and linear layers that are being trained; biases, normalization and activation
slopes go free unless `include` says otherwise.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from pycnn._arguments import real
from pycnn._core import Segments
from pycnn.nn import Module
from pycnn.optim import Optimizer
from pycnn.parameter import Parameter, StructureEpoch, flat_runs

Include = str | Callable[[str, Parameter], bool]


class Regularizer:
    """l1 sum |w| + l2 sum w^2 over the chosen parameters; the base of L1, L2 and ElasticNet.

    Args:
        l1, l2: strengths, at least 0.
        proximal: treat the l1 part not by its subgradient but, after each update, by its proximal step, the soft
            threshold w = sign(w) max(|w| - lr l1, 0), which makes weights exactly zero. Beck and Teboulle, "A fast
            iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sciences 2, 2009.
        include: 'weights', 'all' for every parameter, or a function of (name, parameter) that chooses.
    """

    def __init__(self, l1: float, l2: float, proximal: bool, include: Include) -> None:
        self.l1 = real(l1, "l1", 0.0)
        self.l2 = real(l2, "l2", 0.0)
        self.proximal = bool(proximal)
        if not callable(include) and include not in ("weights", "all"):
            raise ValueError(f"include: got {include!r}, expected 'weights', 'all' or a function")
        self.include = include
        self._table: tuple[Any, int, Segments | None] | None = None

    def penalty(self, model: Module) -> float:
        """The penalty as it stands."""
        table = self.table(model)
        return table.penalty(self.l1, self.l2, False) if table else 0.0

    def add_gradients(self, model: Module) -> float:
        """Adds the penalty's gradient to the parameters' `grad`; returns the penalty."""
        table = self.table(model)
        if table is None:
            return 0.0
        if not self.proximal:
            return table.penalty(self.l1, self.l2, True)
        return table.penalty(self.l1, 0.0, False) + table.penalty(0.0, self.l2, True)

    def apply_proximal(self, model: Module, lr: float | Optimizer) -> None:
        """The proximal step of the l1 part, if `proximal`; nothing otherwise.

        Args:
            model: whose weights are shrunk.
            lr: the learning rate, or the optimizer whose groups say it; what it does not train is left alone.
        """
        if not self.proximal:
            return
        if isinstance(lr, Optimizer):
            chosen = {id(p) for p in self.chosen(model)}
            for group in lr.param_groups:
                table = make_table([p for p in group["params"] if id(p) in chosen])
                if table is not None:
                    table.soft_threshold(group["lr"] * self.l1)
        else:
            table = self.table(model)
            if table is not None:
                table.soft_threshold(real(lr, "lr", 0.0) * self.l1)

    def chosen(self, model: Module) -> list[Parameter]:
        """The parameters that the penalty falls on."""
        if not isinstance(model, Module):
            raise TypeError(f"model: got {type(model).__name__}, expected pycnn.nn.Module")
        if self.include == "weights":
            parameters = [p for m in model.modules() for p in m._weights()]
        elif self.include == "all":
            parameters = list(model.parameters())
        else:
            assert callable(self.include)
            parameters = [p for name, p in model.named_parameters() if self.include(name, p)]
        return [p for p in parameters if p.requires_grad]

    def table(self, model: Module) -> Segments | None:
        """The chosen parameters as a segment table; None if there are none."""
        if self._table is None or self._table[0]() is not model or self._table[1] != StructureEpoch.value:
            epoch = StructureEpoch.value
            self._table = (weakref.ref(model), epoch, make_table(self.chosen(model)))
        return self._table[2]


def make_table(parameters: list[Parameter]) -> Segments | None:
    """Parameters as a segment table without optimizer state; None for no parameters."""
    if not parameters:
        return None
    return Segments(parameters[0].dtype, [(*run, 0) for run in flat_runs(parameters)])


class L1(Regularizer):
    """strength sum |w|, with subgradient 0 at w = 0: drives small weights to zero, exactly if `proximal`."""

    def __init__(self, strength: float, proximal: bool = False, include: Include = "weights") -> None:
        super().__init__(real(strength, "strength", 0.0), 0.0, proximal, include)


class L2(Regularizer):
    """strength sum w^2, without a half: gradient 2 strength w."""

    def __init__(self, strength: float, include: Include = "weights") -> None:
        super().__init__(0.0, real(strength, "strength", 0.0), False, include)


class ElasticNet(Regularizer):
    """l1 sum |w| + l2 sum w^2. Zou and Hastie, "Regularization and variable selection via the elastic net", 2005."""

    def __init__(self, l1: float, l2: float, proximal: bool = False, include: Include = "weights") -> None:
        super().__init__(l1, l2, proximal, include)
