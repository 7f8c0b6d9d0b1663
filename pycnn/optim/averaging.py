"""Averages of weights along the way of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pycnn._arguments import real
from pycnn._core import Segments
from pycnn.parameter import Array, Parameter, StructureEpoch, check_parameters, flat_runs


class WeightAverage:
    """An exponential moving average of parameters: average += (1 - decay) (w - average).

    Its networks often generalize better than the last weights. Polyak and Juditsky, "Acceleration of stochastic
    approximation by averaging", 1992.

        average = WeightAverage(model.parameters(), decay=0.999)
        trainer = pycnn.Trainer(model, loss, optimizer, average=average)     # updates it within each step
        with average.applied():
            trainer.evaluate(x, y)

    Args:
        params: parameters. decay: in [0, 1]; the average starts at the weights as they are now.

    Attributes:
        updates: how often it was updated.

    Raises:
        TypeError, ValueError: params are no parameters, or decay is out of range.
    """

    def __init__(self, params: Any, decay: float = 0.999) -> None:
        self._parameters: list[Parameter] = list(check_parameters(params))
        self.decay = real(decay, "decay", 0.0)
        if self.decay > 1.0:
            raise ValueError(f"decay: got {decay}, expected a number in [0, 1]")
        self.updates = 0
        self._arrays = [p.data.copy() for p in self._parameters]
        self._flat: Array | None = None
        self._segments: Segments | None = None
        self._epoch: int | None = None

    @property
    def arrays(self) -> list[Array]:
        """The averages, as copies, in the order of the parameters."""
        self._gather()
        return [array.copy() for array in self._arrays]

    def update(self) -> None:
        """Takes the weights as they are into the average."""
        segments, flat, decay = self.table()
        segments.average(flat, decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the parameters hold the averages."""
        averages = self.arrays
        kept = [p.data.copy() for p in self._parameters]
        try:
            for p, average in zip(self._parameters, averages, strict=True):
                p.data[...] = average
            yield
        finally:
            for p, data in zip(self._parameters, kept, strict=True):
                p.data[...] = data

    def table(self) -> tuple[Segments, Array, float]:
        """(the parameters as segments, the flat array of averages beside them, decay), as the engine takes them."""
        if self._segments is None or self._flat is None or self._epoch != StructureEpoch.value:
            self._gather()
            self._spread()
            self._epoch = StructureEpoch.value
        assert self._segments is not None and self._flat is not None
        return self._segments, self._flat, self.decay

    def _gather(self) -> None:
        """From the flat array back to one array per parameter."""
        if self._flat is None:
            return
        for array, where in zip(self._arrays, self._places, strict=True):
            array[...] = self._flat[where : where + array.size].reshape(array.shape)

    def _spread(self) -> None:
        """The flat array: runs of neighbouring parameters as they lie, one behind the other."""
        dtype = self._parameters[0].dtype
        self._arrays = [array.astype(dtype, copy=False) for array in self._arrays]
        rows, offset, starts = [], 0, []
        for data, grad in flat_runs(self._parameters):
            rows.append((data, grad, offset))
            starts.append((data.ctypes.data, data.nbytes, offset))
            offset += data.size
        self._places = []
        for p in self._parameters:
            address = p.data.ctypes.data
            start, _, first = next(row for row in starts if row[0] <= address < row[0] + max(row[1], 1))
            self._places.append(first + (address - start) // dtype.itemsize)
        self._flat = np.zeros(offset, dtype)
        for array, where in zip(self._arrays, self._places, strict=True):
            self._flat[where : where + array.size] = array.ravel()
        self._segments = Segments(dtype, rows)
