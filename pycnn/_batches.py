"""Batches for the Trainer, from whatever holds images and targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pycnn._arguments import integer
from pycnn.data import DataLoader, Normalize
from pycnn.parameter import Array

_BYTES = np.dtype(np.uint8)
_DATASET_DTYPES = (_BYTES, np.dtype(np.float32))

to_float = Normalize()  # bytes from 0..255 to 0..1, as DataLoader does


class ArrayBatches:
    """Batches of arrays that are no images, as features (n, f) or float64; iterated as a DataLoader is."""

    def __init__(self, x: Array, y: Array, batch_size: int, shuffle: bool, seed: int) -> None:
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise ValueError(f"y: got shape {y.shape} for x of shape {x.shape}, expected one target for each")
        self.x, self.y = x, y
        self.batch_size = integer(batch_size, "batch_size", 1)
        self.shuffle = shuffle
        self.seed = integer(seed, "seed", 0)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        rows = np.arange(len(self.x))
        if self.shuffle:
            np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.epoch,))).shuffle(rows)
        for first in range(0, len(rows), self.batch_size):
            chosen = rows[first : first + self.batch_size]
            yield self.x[chosen], self.y[chosen]


def make_batches(
    x: Any, y: Any, batch_size: int, shuffle: bool = False, seed: int = 0, transform: Any = None
) -> DataLoader | ArrayBatches:
    """Batches of a pair of arrays, of a data set, or a DataLoader as it is."""
    if isinstance(x, DataLoader):
        if y is not None or transform is not None:
            raise ValueError(
                "x: got a DataLoader, which has targets and transform of its own; expected neither beside it"
            )
        return x
    if not isinstance(x, np.ndarray):
        if y is not None:
            raise TypeError(f"x: got {type(x).__name__} beside y, expected a NumPy array")
        return DataLoader(x, batch_size, shuffle, transform, seed=seed)
    if not isinstance(y, np.ndarray):
        raise TypeError(f"y: got {type(y).__name__}, expected a NumPy array")
    if x.ndim == 4 and x.dtype in _DATASET_DTYPES:
        return DataLoader((x, y), batch_size, shuffle, transform, seed=seed)
    if transform is not None:
        raise ValueError(
            f"transform: got one for x of shape {x.shape} and {x.dtype}, expected images of uint8 or float32"
        )
    return ArrayBatches(x, y, batch_size, shuffle, seed)


def count_images(batches: DataLoader | ArrayBatches) -> int:
    """Images in an epoch."""
    if isinstance(batches, ArrayBatches):
        return len(batches.x)
    return min(len(batches.dataset), len(batches) * batches.batch_size)


def slices(x: Any, batch_size: int) -> Iterator[Array]:
    """An array's rows in batches, at least one; images of bytes as floats from 0 to 1."""
    if not isinstance(x, np.ndarray) or x.ndim == 0:
        got = type(x).__name__ if not isinstance(x, np.ndarray) else "a number"
        raise TypeError(f"x: got {got}, expected a NumPy array")
    for first in range(0, max(len(x), 1), integer(batch_size, "batch_size", 1)):
        part = x[first : first + batch_size]
        yield to_float(part) if part.dtype == _BYTES and part.ndim == 4 else part
