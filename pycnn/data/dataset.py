"""Images and targets held in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check

_IGNORED = -100  # the losses' default ignore_index


def channels_last(x: NDArray[Any]) -> NDArray[Any]:
    """`x` of shape (n, c, h, w) with its memory in the order n, h, w, c; copied only if need be."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


class ArrayDataset:
    """Images and their targets as arrays.

    x: (n, c, h, w), uint8 (0 to 255) or float32. Kept channels-last in memory: copied only if need be.
    y: class numbers from 0 in any integer dtype, kept as int64: (n,), or one a pixel (n, h, w), where -100
    marks what losses ignore; or float32 of shape (n, ...), for regression.
    classes: names of the classes, by number; without it the numbers themselves, up to the greatest in y.

    ``dataset[i]`` with an integer is the pair (image (c, h, w), target); with a slice, an index array or a
    boolean mask it is an ArrayDataset of those rows.

    Raises TypeError for other dtypes; ValueError for other shapes, lengths that differ, negative class
    numbers and class numbers without a name.
    """

    def __init__(self, x: NDArray[Any], y: NDArray[Any], classes: Iterable[str] | None = None):
        self.x = channels_last(_check.images("x", x))
        self.y = _targets(y, len(x))
        used = 1 + int(self.y.max(initial=-1)) if self.y.dtype == np.int64 else 0
        self.classes = tuple(map(str, range(used) if classes is None else classes))
        if used > len(self.classes):
            raise ValueError(
                f"y: got class number {used - 1}, wanted below {len(self.classes)}, "
                "the number of names in classes"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 for float targets without `classes`."""
        return len(self.classes)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)):
            return self.x[index], self.y[index]
        return ArrayDataset(*self.gather(index), classes=self.classes)

    def gather(self, index: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Rows as a pair of arrays: images (m, c, h, w), channels-last in memory, and targets (m, ...)."""
        # Indexed as n, h, w, c: so the copy is of whole images and the result's memory has that order too.
        return self.x.transpose(0, 2, 3, 1)[index].transpose(0, 3, 1, 2), self.y[index]

    def __repr__(self) -> str:
        return (
            f"ArrayDataset({len(self)} images {self.x.shape[1:]} {self.x.dtype}, {self.num_classes} classes)"
        )


class Splits(NamedTuple):
    """A data set's two parts: ``train, test = mnist(root)``, or ``mnist(root).train``."""

    train: ArrayDataset
    test: ArrayDataset


def _targets(y: Any, n: int) -> NDArray[Any]:
    y = np.asarray(y)
    if y.dtype.kind not in "iu" and y.dtype != np.float32:
        raise TypeError(f"y: got dtype {y.dtype}, wanted integers (class numbers) or float32")
    if y.ndim == 0 or len(y) != n:
        raise ValueError(f"y: got shape {y.shape}, wanted ({n}, ...): one target an image")
    if y.dtype == np.float32:
        return y
    numbers = y.astype(np.int64, copy=False)  # what uint64 has above int64 turns negative, and is found below
    wrong = (numbers < 0) & (y != _IGNORED)
    if wrong.any():
        raise ValueError(f"y: got class number {y[wrong][0]}, wanted 0 or above, or {_IGNORED} for ignored")
    return numbers
