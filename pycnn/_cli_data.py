"""What `--data` of the command line means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pycnn import data
from pycnn.data.augment import Transform
from pycnn.data.cifar import CLASSES as CIFAR10_CLASSES
from pycnn.parameter import Array

BUNDLED = "mnist5k"

_IN_MEMORY = 1 << 30  # bytes of decoded images that are kept; larger folders are decoded anew each epoch
_HELD_OUT = 0.2  # of a folder that is not parted into train and test
_SAMPLE = 2000  # images that mean and standard deviation are taken from
_UNIFORM = 0.1  # standard deviation of border pixels, of 0..1, up to which there is a background


class Rows:
    """Some rows of a data set."""

    def __init__(self, dataset: Any, rows: Array) -> None:
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.rows[index])]

    def gather(self, index: Any) -> tuple[Array, Array]:
        images, targets = self.dataset.gather(self.rows[index])
        return images, targets


@dataclass
class Source:
    """A data set in its two parts, and how to train on it."""

    name: str
    train: Any
    test: Any
    classes: tuple[str, ...]
    augmentation: list[Transform]
    epochs: int


def load(name: str, image_size: int | None = None, limit: int | None = None) -> Source:
    """The data set of this name.

    Args:
        name: 'mnist5k'; or a folder with MNIST's IDX files; with CIFAR-10's binary batches; with train/CLASS/ and
            test/CLASS/ (or val/CLASS/) image files; or with CLASS/ image files, a fifth of which is then held out.
        image_size: what image folders are brought to, 32 by default.
        limit: most images that are used, in training and in testing.

    Raises:
        FileNotFoundError, FormatError, ValueError: no data there, or damaged ones.
    """
    source = _find(name, image_size or 32)
    if limit is not None:
        source.train, source.test = _some(source.train, limit), _some(source.test, limit)
    return source


def _find(name: str, size: int) -> Source:
    digits: list[Transform] = [data.RandomAffine(12, (0.1, 0.1), (0.85, 1.15))]
    root = Path(name)
    if name == BUNDLED and not root.exists():
        splits = data.mnist5k()
        return Source(name, *splits, splits.train.classes, digits, epochs=8)
    if not root.is_dir():
        raise FileNotFoundError(f"--data: no folder {name}, and {BUNDLED!r} is the one data set that is bundled")
    if any(root.glob("train-images-idx3-ubyte*")):
        splits = data.mnist(root)
        return Source(name, *splits, splits.train.classes, digits, epochs=5)
    if (root / "test_batch.bin").is_file() or (root / "cifar-10-batches-bin").is_dir():
        return _photos(name, *data.cifar10(root), size=32)
    held_out = next((root / part for part in ("test", "val") if (root / part).is_dir()), None)
    if (root / "train").is_dir() and held_out is not None:
        train, test = data.ImageFolder(root / "train", size), data.ImageFolder(held_out, size)
        if train.classes != test.classes:
            raise ValueError(f"--data: {root / 'train'} and {held_out} have different class folders")
        if train.classes == CIFAR10_CLASSES and size == 32 and held_out.name == "test":
            return _photos(name, *data.cifar10(root), size=32)
        return _photos(name, _in_memory(train, size), _in_memory(test, size), size=size)
    folder = data.ImageFolder(root, size)
    order = np.random.default_rng(0).permutation(len(folder))
    count = max(1, round(_HELD_OUT * len(folder)))
    images = _in_memory(folder, size)
    source = _photos(name, images, images, size=size)
    source.train, source.test = Rows(images, np.sort(order[count:])), Rows(images, np.sort(order[:count]))
    return source


def _photos(name: str, train: Any, test: Any, size: int) -> Source:
    augmentation: list[Transform] = [data.RandomCrop(size, padding=size // 8), data.RandomHorizontalFlip()]
    return Source(name, train, test, train.classes, augmentation, epochs=10)


def _in_memory(folder: data.ImageFolder, size: int) -> Any:
    return folder.arrays() if len(folder) * 3 * size * size <= _IN_MEMORY else folder


def _some(dataset: Any, limit: int) -> Rows:
    return Rows(dataset, np.sort(np.random.default_rng(0).permutation(len(dataset))[:limit]))


@dataclass
class Statistics:
    """What a model must know of the images it was trained on; all of pixels from 0 to 1."""

    shape: tuple[int, int, int]
    mean: list[float]
    std: list[float]
    background: float | None  # of grey images, if their borders are all alike


def measure(dataset: Any) -> Statistics:
    """Shape and, from a sample, mean and standard deviation of each channel."""
    images = _some(dataset, _SAMPLE).gather(slice(None))[0]
    pixels = images.astype(np.float64) / 255
    mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
    border = border_of(pixels)
    alike = images.shape[1] == 1 and border.std() <= _UNIFORM
    return Statistics(
        images.shape[1:],
        [round(float(m), 4) for m in mean],
        [round(max(float(s), 1e-3), 4) for s in std],
        round(float(border.mean()), 4) if alike else None,
    )


def border_of(images: Array) -> Array:
    """The outermost pixels of images (..., h, w), on a last axis of their own."""
    edges = (images[..., 0, :], images[..., -1, :], images[..., 1:-1, 0], images[..., 1:-1, -1])
    return np.concatenate(edges, axis=-1)
