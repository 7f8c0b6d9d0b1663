"""Batches for training, prepared while it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import _check
from .augment import Images, Normalize, Transform
from .dataset import ArrayDataset, channels_last

Batch = tuple[NDArray[np.float32], NDArray[Any]]
_to_float = Normalize()


class Dataset(Protocol):
    """What a DataLoader needs: pairs (image (c, h, w), target), by number.

    One that also has ``gather(rows)``, as ArrayDataset and ImageFolder have, is asked for whole batches.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Images, Any]: ...


class DataLoader:
    """Batches (x, y) of a data set, one epoch each time it is iterated.

    dataset: an ArrayDataset, an ImageFolder, a pair of arrays (x, y) as ArrayDataset takes them, or anything
    with ``len(dataset)`` and ``dataset[i]`` that gives (image (c, h, w), target).

    x: float32 (batch, c, h, w), channels-last in memory. uint8 images, if `transform` leaves them so, are
    taken from 0..255 to 0..1. y: int64 (batch, ...), or float32 if the data set's targets are.

    shuffle: a new order each epoch.
    transform: ``transform(x, rng)`` of a whole batch (see pycnn.data.augment).
    drop_last: leave out a last batch that is not full.
    seed: order and augmentation follow from it, the epoch's number and the batch's number alone, so they
    repeat from run to run (with one version of NumPy), whatever `prefetch` is.
    prefetch: how many batches a background thread prepares ahead; 0 prepares each when it is asked for,
    without thread. An exception in the thread is raised where its batch is asked for. Leaving the loop early
    ends the thread.

    Raises TypeError or ValueError for bad arguments, and, when iterated, if images have not all one shape or
    `transform` returns anything but a batch of images.
    """

    def __init__(
        self,
        dataset: Dataset | tuple[NDArray[Any], NDArray[Any]],
        batch_size: int = 1,
        shuffle: bool = False,
        transform: Transform | None = None,
        drop_last: bool = False,
        seed: int = 0,
        prefetch: int = 2,
    ):
        if isinstance(dataset, tuple):
            if len(dataset) != 2:
                raise TypeError(f"dataset: got a tuple of {len(dataset)}, wanted a pair of arrays (x, y)")
            dataset = ArrayDataset(*dataset)
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise TypeError(
                f"dataset: got {type(dataset).__name__}, wanted a data set or a pair of arrays (x, y)"
            )
        if transform is not None and not callable(transform):
            raise TypeError(f"transform: got {type(transform).__name__}, wanted a function of (x, rng)")
        self.dataset: Any = dataset
        self.batch_size = _check.integer("batch_size", batch_size, 1)
        self.shuffle = shuffle
        self.transform = transform
        self.drop_last = drop_last
        self.seed = _check.integer("seed", seed, 0)
        self.prefetch = _check.integer("prefetch", prefetch, 0)
        self._epoch = 0

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + bool(rest and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Number the next epoch, from 0: a run taken up again at epoch 5 then gets that epoch's batches."""
        self._epoch = _check.integer("epoch", epoch, 0)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._epoch
        self._epoch += 1
        return self._batches(epoch)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        rows = np.arange(len(self.dataset))
        if self.shuffle:
            self._rng(epoch, 0).shuffle(rows)
        parts = (rows[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self)))
        jobs = ((part, self._rng(epoch, 1 + i)) for i, part in enumerate(parts))
        if self.prefetch == 0:
            yield from (self._prepare(*job) for job in jobs)
            return
        # Leaving the loop early closes this generator, which leaves the `with` and so ends the thread.
        with ThreadPoolExecutor(1, "pycnn-data") as thread:
            ahead = deque(thread.submit(self._prepare, *job) for job in islice(jobs, self.prefetch))
            try:
                while ahead:
                    batch = ahead.popleft().result()
                    ahead.extend(thread.submit(self._prepare, *job) for job in islice(jobs, 1))
                    yield batch
            finally:
                thread.shutdown(wait=False, cancel_futures=True)

    def _rng(self, *key: int) -> np.random.Generator:
        """A stream of its own for each key: a batch's augmentation does not depend on what came before it."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _prepare(self, rows: NDArray[np.intp], rng: np.random.Generator) -> Batch:
        x, y = self.dataset.gather(rows) if hasattr(self.dataset, "gather") else _stack(self.dataset, rows)
        if self.transform is not None:
            x = _check.images("transform's result", self.transform(x, rng))
            if len(x) != len(rows):
                raise ValueError(f"transform's result: got {len(x)} images, wanted {len(rows)}")
        if x.dtype == np.uint8:
            x = _to_float(x)
        return channels_last(x), y


def _stack(dataset: Dataset, rows: NDArray[np.intp]) -> tuple[Images, NDArray[Any]]:
    """The pairs of any data set as arrays, checked as an ArrayDataset is."""
    images, targets = zip(*(dataset[int(row)] for row in rows), strict=True)
    shapes = {np.shape(image) for image in images}
    if len(shapes) > 1:
        raise ValueError(
            f"dataset: got images of shapes {', '.join(map(str, sorted(shapes)))} in one batch, wanted one"
        )
    batch = ArrayDataset(np.stack(images), np.stack(targets))
    return batch.x, batch.y
