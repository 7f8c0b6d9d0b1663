"""The tables of a training step, which runs as one call into the engine."""

from __future__ import annotations

from typing import Any

from pycnn._core import Segments, Training
from pycnn.nn import Module
from pycnn.optim import Optimizer
from pycnn.optim.averaging import WeightAverage
from pycnn.parameter import StructureEpoch
from pycnn.regularizers import Regularizer, make_table


class Step:
    """What follows backward in a training step: penalty, clipping, updates, averaging. It notices parameters that
    moved, were frozen or joined another group, and builds its tables anew."""

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        regularizer: Regularizer | None,
        clip_norm: float | None,
        average: WeightAverage | None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.regularizer = regularizer
        self.clip_norm = clip_norm
        self.average = average
        self._training: Training | None = None
        self._made_for: Any = None

    def prepare(self) -> Training:
        """The tables, with options and step counts as they stand."""
        updates = self.optimizer.next_updates()
        made_for = (StructureEpoch.value, [id(update.segments) for update in updates])
        if self._training is None or made_for != self._made_for:
            self._training, self._made_for = self._build(updates), made_for
        proximal = self.regularizer is not None and self.regularizer.proximal
        if self.regularizer is not None:
            self._training.set_penalty(self.regularizer.l1, self.regularizer.l2, proximal)
        for number, update in enumerate(updates):
            threshold = update.options["lr"] * self.regularizer.l1 if proximal and self.regularizer else 0.0
            self._training.set_sweep(
                number, self.optimizer.rule, update.state, update.step, update.options, threshold
            )
        self._updates = updates
        return self._training

    def count(self) -> None:
        """The step has been done."""
        self.optimizer.count_step(self._updates)
        if self.average is not None:
            self.average.updates += 1

    def _build(self, updates: list[Any]) -> Training:
        trained = {id(p): p for p in self.model.parameters() if p.requires_grad}
        for p in self.model.parameters():
            if not p.requires_grad:
                p.zero_grad()  # once: nobody writes to it from here on
        for update in updates:
            trained |= {id(p): p for p in update.parameters}
        dtype = self.model.dtype or next(iter(trained.values())).dtype
        regularizer = self.regularizer
        penalized = None if regularizer is None else regularizer.table(self.model)
        sweeps: list[tuple[Segments, Segments | None]] = []
        chosen = {id(p) for p in regularizer.chosen(self.model)} if regularizer and regularizer.proximal else set()
        for update in updates:
            sweeps.append((update.segments, make_table([p for p in update.parameters if id(p) in chosen])))
        # The engine takes 0 for no bound; a bound of 0 makes all gradients zero.
        clip_norm = 0.0 if self.clip_norm is None else max(self.clip_norm, 5e-324)
        table = make_table(list(trained.values())) or Segments(dtype, [])
        averaged = None if self.average is None else self.average.table()
        return Training(table, penalized, sweeps, clip_norm, averaged)
