"""The numbers that all contestants work on, and the sample by which their results are compared."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from pycnn.parameter import Array, aligned_zeros

_PRIME = 1_000_003  # numbers that are drawn; repeating them makes large arrays quickly, and a prime meets no stride
_SAMPLE = 97


@functools.cache
def _numbers(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(_PRIME, np.float32)


def normal(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Array:
    """Normal numbers, row-major, on a cache line; the same for everybody."""
    array = empty(shape)
    array[...] = np.resize(_numbers(seed) * np.float32(scale), shape)
    return array


def empty(shape: tuple[int, ...]) -> Array:
    return aligned_zeros(int(np.prod(shape)), np.dtype(np.float32)).reshape(shape)


def full(shape: tuple[int, ...], value: float) -> Array:
    array = empty(shape)
    array.fill(value)
    return array


def targets(n: int, classes: int = 10) -> Array:
    """Classes, the same for everybody."""
    return np.random.default_rng(1).integers(0, classes, n)


def channels_last(array: Array) -> Array:
    """The same values and the same logical shape (n, c, h, w); memory (n, h, w, c). Other ranks stay."""
    if array.ndim != 4:
        return array
    n, c, h, w = array.shape
    memory = empty((n, h, w, c))
    memory[...] = array.transpose(0, 2, 3, 1)
    return memory.transpose(0, 3, 1, 2)


def sample(array: Any) -> list[float]:
    """A few numbers from all over the array, by logical position, and the mean magnitude."""
    array = np.asarray(array)
    places = np.linspace(0, array.size - 1, min(_SAMPLE, array.size)).astype(np.int64)
    values = array[np.unravel_index(places, array.shape)].astype(np.float64)
    return [*values.tolist(), float(np.abs(array).mean(dtype=np.float64))]


def agree(left: list[float], right: list[float], tolerance: float = 1e-3) -> bool:
    """Whether two samples are of the same result, up to rounding."""
    if len(left) != len(right):
        return False
    a, b = np.array(left), np.array(right)
    return bool(np.isfinite(a).all() and np.max(np.abs(a - b)) <= tolerance * max(np.max(np.abs(b)), 1e-30))
