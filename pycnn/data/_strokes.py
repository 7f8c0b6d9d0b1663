"""Grey images of strokes in a form that xz makes small: a quarter smaller than the images gzipped.

How grey a pixel is depends on whether it lies inside a stroke or on its edge, and so on which of its neighbours have
ink. Therefore where ink is comes first, one bit a pixel, and then its values, sorted by the ink around them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack(images: NDArray[np.uint8]) -> bytes:
    """Images (n, h, w) as bytes that `unpack` turns back into the same."""
    ink = images != 0
    return _xz().compress(_bits(ink).tobytes() + images.ravel()[_order(ink)].tobytes(), preset=9)


def unpack(packed: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The images (n, h, w) of which `pack` made the bytes. Raises ImportError if this Python has no lzma module."""
    n, h, w = shape
    content = np.frombuffer(_xz().decompress(packed), np.uint8)
    row = -(-w // 8)
    bits = content[: n * h * row].reshape(n, h, row)
    ink = np.unpackbits(bits, axis=-1, count=w, bitorder="little").astype(bool)
    images = np.zeros(shape, np.uint8)
    images.ravel()[_order(ink)] = content[bits.size :]
    return images


def _bits(ink: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(ink, axis=-1, bitorder="little")


def _order(ink: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The places of all pixels with ink, in the order in which their values are kept."""
    n, h, w = ink.shape
    padded = np.zeros((n, h + 2, w + 2), np.uint8)
    padded[:, 1:-1, 1:-1] = ink
    around = np.zeros(ink.shape, np.uint8)
    neighbours = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    for bit, (i, j) in enumerate(neighbours):
        around |= padded[:, i : i + h, j : j + w] << np.uint8(bit)
    places = np.flatnonzero(ink)
    return places[np.argsort(around.ravel()[places], kind="stable")]


def _xz() -> Any:
    try:
        import lzma  # a few builds of Python have none
    except ImportError as error:
        raise ImportError(
            "the bundled digits are packed by xz, and this Python was built without its module lzma"
        ) from error
    return lzma
