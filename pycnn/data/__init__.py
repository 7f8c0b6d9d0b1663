"""Data sets, augmentation and batches.

    train, test = pycnn.data.mnist5k()
    loader = pycnn.data.DataLoader(train, batch_size=64, shuffle=True, transform=pycnn.data.RandomAffine(10))
    for x, y in loader: ...

Images are (n, c, h, w), channels-last in memory: uint8 as they are kept, float32 as they come from a
DataLoader.
"""

from .augment import Compose, Cutout, Normalize, RandomAffine, RandomCrop, RandomHorizontalFlip
from .cifar import cifar10
from .dataset import ArrayDataset, Splits
from .folder import ImageFolder, read_image
from .idx import read_idx, write_idx
from .loader import DataLoader
from .mnist import mnist, mnist5k

__all__ = [
    "ArrayDataset",
    "Compose",
    "Cutout",
    "DataLoader",
    "ImageFolder",
    "Normalize",
    "RandomAffine",
    "RandomCrop",
    "RandomHorizontalFlip",
    "Splits",
    "cifar10",
    "mnist",
    "mnist5k",
    "read_idx",
    "read_image",
    "write_idx",
]
