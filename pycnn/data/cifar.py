"""CIFAR-10: small photographs, 32x32, RGB, ten classes (Krizhevsky, 2009)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from .dataset import ArrayDataset, Splits
from .folder import ImageFolder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST = ("test_batch.bin",)
_IMAGES_PER_FILE = 10_000
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32  # a label, then the image plane by plane


def cifar10(root: str | os.PathLike[str]) -> Splits:
    """CIFAR-10 from the folder `root`, in either of two forms.

    The published binary version: ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, in
    `root` or in ``root/cifar-10-batches-bin``. Or an image folder: ``train/CLASS/*`` and ``test/CLASS/*``,
    32x32 (needs Pillow).

    Returns (train, test), for the published set 50,000 and 10,000 images: x uint8 (n, 3, 32, 32), y int64
    (n,).

    Raises FileNotFoundError if `root` holds neither, FormatError if a file is damaged or not of CIFAR-10's
    shape.
    """
    root = Path(root)
    for folder in (root, root / "cifar-10-batches-bin"):
        if (folder / _TEST[0]).is_file():
            return Splits(_read_batches(folder, _TRAIN), _read_batches(folder, _TEST))
    if (root / "train").is_dir() and (root / "test").is_dir():
        return Splits(_read_folder(root / "train"), _read_folder(root / "test"))
    raise FileNotFoundError(
        f"root: no {_TEST[0]}, cifar-10-batches-bin/{_TEST[0]}, or train/ and test/ in {root} "
        "(of the published archives only the binary version is read)"
    )


def _read_batches(folder: Path, names: tuple[str, ...]) -> ArrayDataset:
    batches = [_read_batch(folder / name) for name in names]
    x, y = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return ArrayDataset(x.transpose(0, 3, 1, 2), y, CLASSES)


def _read_batch(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images (n, 32, 32, 3) and labels (n,) of one binary batch."""
    size, wanted = path.stat().st_size, _IMAGES_PER_FILE * _RECORD
    if size != wanted:
        raise FormatError(f"{path}: {size} bytes, wanted {wanted}: {_IMAGES_PER_FILE} records of {_RECORD}")
    records = np.fromfile(path, np.uint8).reshape(-1, _RECORD)
    y = records[:, 0]
    if y.max() >= len(CLASSES):
        raise FormatError(f"{path}: label {y.max()}, wanted 0 to {len(CLASSES) - 1}")
    return records[:, 1:].reshape(-1, *_SHAPE).transpose(0, 2, 3, 1), y


def _read_folder(path: Path) -> ArrayDataset:
    folder = ImageFolder(path)
    if folder.classes != CLASSES:
        raise FormatError(f"{path}: classes {' '.join(folder.classes)}, wanted {' '.join(CLASSES)}")
    dataset = folder.arrays()
    if dataset.x.shape[1:] != _SHAPE:
        raise FormatError(f"{path}: images of shape {dataset.x.shape[1:]}, wanted {_SHAPE}")
    return dataset
