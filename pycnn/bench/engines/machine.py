"""The machine itself: multiply-adds in registers, and a copy past the caches."""

from __future__ import annotations

import numpy as np

from pycnn import _core, cpu_info, set_num_threads
from pycnn.bench.cases import FORWARD, Case
from pycnn.bench.engines import Work
from pycnn.parameter import aligned_zeros

_COPIED = 1 << 24  # floats: 64 MiB each way, which pass most caches by

MULTIPLY_ADDS, COPY = "multiply_adds", "copy"


def cases(threads: int) -> list[Case]:
    """The two loops; their rates are the peak and the bandwidth that shares are given of."""
    return [
        Case("machine", "machine", op, op, FORWARD, (), options={}, threads=threads) for op in (MULTIPLY_ADDS, COPY)
    ]


class _Machine:
    def __init__(self) -> None:
        self._src = aligned_zeros(_COPIED, np.dtype(np.float32))
        self._dst = aligned_zeros(_COPIED, np.dtype(np.float32))
        self._src.fill(1.0)  # untouched pages would all be one page of zeros

    def describe(self) -> dict[str, str]:
        return {"isa": cpu_info()["isa"]}

    def use_threads(self, threads: int) -> None:
        set_num_threads(threads)

    def prepare(self, case: Case) -> dict[str, Work]:
        if case.op == MULTIPLY_ADDS:
            return {"": Work(_core.run_multiply_adds, amount=_core.run_multiply_adds())}
        return {"": Work(lambda: _core.run_copy(self._src, self._dst), amount=8.0 * _COPIED)}


def create(threads: int) -> _Machine:
    return _Machine()
