"""Trainable tensors and the flat memory that they live in.

Parameters and their gradients lie in slabs: a pair of flat, aligned arrays, one for values and one for gradients, in
which parameters are placed one behind the other as layers are made. A view once given out (`parameter.data`) stays
valid and writable for the parameter's life, and an optimizer sweeps a whole slab, not an array per layer.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector
_SMALLEST_SLAB = 1 << 16  # elements
_LARGEST_SLAB = 1 << 22

FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def _float_dtype(dtype: Any) -> np.dtype[Any]:
    wanted = np.dtype(dtype)
    if wanted not in FLOAT_DTYPES:
        raise TypeError(f"dtype: got {wanted}, expected float32 or float64")
    return wanted


class StructureEpoch:
    """Counts changes to the structure of any module or the placement of any parameter.

    A traced network is valid as long as nothing changed; comparing one number is all that a call costs."""

    value = 0

    @classmethod
    def advance(cls) -> None:
        cls.value += 1


def aligned_zeros(count: int, dtype: np.dtype[Any]) -> Array:
    """A flat array of zeros that starts on a cache line. Untouched pages cost no memory."""
    padding = _ALIGNMENT // dtype.itemsize
    memory = np.zeros(count + padding, dtype)
    first = (-memory.ctypes.data % _ALIGNMENT) // dtype.itemsize
    return memory[first : first + count]


class _Slab:
    def __init__(self, capacity: int, dtype: np.dtype[Any]) -> None:
        self.data = aligned_zeros(capacity, dtype)
        self.grad = aligned_zeros(capacity, dtype)
        self.capacity = capacity
        self.used = 0


class _Storage:
    """Hands out places in slabs of one dtype. Slabs double in size; a large tensor gets one of its own."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.granule = _ALIGNMENT // dtype.itemsize
        self.current: _Slab | None = None
        self.next_capacity = _SMALLEST_SLAB
        self.lock = threading.Lock()

    def place(self, count: int) -> tuple[_Slab, int]:
        rounded = -(-max(count, 1) // self.granule) * self.granule
        with self.lock:
            slab = self.current
            if slab is None or slab.used + rounded > slab.capacity:
                slab = _Slab(max(self.next_capacity, rounded), self.dtype)
                if rounded < self.next_capacity:
                    self.current = slab
                    self.next_capacity = min(2 * self.next_capacity, _LARGEST_SLAB)
            offset = slab.used
            slab.used += rounded
        return slab, offset


_storages = {dtype: _Storage(dtype) for dtype in FLOAT_DTYPES}


class Parameter:
    """A trainable tensor: `data` and `grad`, both NumPy views of flat memory that the engine reads and writes.

    Assigning to `data` or `grad` copies into place, so that a view taken before stays true. Copying or pickling a
    parameter detaches: the copy has memory of its own.

    Args:
        data: the initial values, copied.
        requires_grad: False freezes it: no gradient is computed and optimizers pass it by.
        dtype: float32 or float64, whatever data's own is.
    """

    __slots__ = ("__weakref__", "_data", "_grad", "_offset", "_requires_grad", "_slab")

    def __init__(self, data: Any, requires_grad: bool = True, dtype: Any = np.float32) -> None:
        self._requires_grad = bool(requires_grad)
        self._place(np.asarray(data), _float_dtype(dtype))

    def _place(self, values: Array, dtype: np.dtype[Any]) -> None:
        self._slab, self._offset = _storages[dtype].place(values.size)
        where = slice(self._offset, self._offset + values.size)
        self._data: Array = self._slab.data[where].reshape(values.shape)
        self._grad: Array = self._slab.grad[where].reshape(values.shape)
        self._data[...] = values
        StructureEpoch.advance()

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, values: Any) -> None:
        self._copy_into(self._data, values, "data")

    @property
    def grad(self) -> Array:
        return self._grad

    @grad.setter
    def grad(self, values: Any) -> None:
        if values is None:
            self._grad[...] = 0
        else:
            self._copy_into(self._grad, values, "grad")

    def _copy_into(self, target: Array, values: Any, name: str) -> None:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}: got dtype {array.dtype}, expected {target.dtype}")
        if array.shape != target.shape:
            raise ValueError(f"{name}: got shape {array.shape}, expected {target.shape}")
        target[...] = array

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if bool(value) != self._requires_grad:
            self._requires_grad = bool(value)
            StructureEpoch.advance()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._data.dtype

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return self._data.size

    def zero_grad(self) -> None:
        self._grad[...] = 0

    def astype_(self, dtype: Any) -> Parameter:
        """Changes the element type in place: `data` and `grad` move to new memory; views taken before are detached."""
        wanted = _float_dtype(dtype)
        if wanted != self.dtype:
            old_data, old_grad = self._data, self._grad
            self._place(old_data, wanted)
            self._grad[...] = old_grad
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._data, dtype=dtype) if copy else np.asarray(self._data, dtype=dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        twin = Parameter(self._data, self._requires_grad, self.dtype)
        twin._grad[...] = self._grad
        memo[id(self)] = twin
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameter, (np.array(self._data), self._requires_grad, self.dtype)

    def __repr__(self) -> str:
        frozen = "" if self._requires_grad else ", requires_grad=False"
        return f"Parameter(shape={self.shape}, dtype={self.dtype}{frozen})"


def flat_runs(parameters: Iterable[Parameter]) -> list[tuple[Array, Array]]:
    """The memory of parameters as few flat (data, grad) pairs: neighbours in a slab join, with the padding between.

    The padding holds zeros and every update keeps zeros at zero. A parameter that comes twice counts once."""
    unique = {id(p): p for p in parameters}.values()
    placed = sorted(unique, key=lambda p: (id(p._slab), p._offset))
    runs: list[list[Any]] = []  # [slab, first, end, padded end]
    for p in placed:
        end = p._offset + p.size
        granule = _ALIGNMENT // p.dtype.itemsize
        padded = p._offset + math.ceil(max(p.size, 1) / granule) * granule
        if runs and runs[-1][0] is p._slab and runs[-1][3] == p._offset:
            runs[-1][2:] = [end, padded]
        else:
            runs.append([p._slab, p._offset, end, padded])
    return [(slab.data[first:end], slab.grad[first:end]) for slab, first, end, _ in runs]


def check_parameters(parameters: Any, argument: str = "params") -> Sequence[Parameter]:
    """The parameters as a list without repetitions; TypeError or ValueError, naming the argument, if they are none."""
    listed = [parameters] if isinstance(parameters, Parameter) else list(parameters)
    for p in listed:
        if not isinstance(p, Parameter):
            raise TypeError(f"{argument}: got {type(p).__name__}, expected pycnn.nn.Parameter")
    if not listed:
        raise ValueError(f"{argument}: got no parameters, expected at least one")
    return list({id(p): p for p in listed}.values())
