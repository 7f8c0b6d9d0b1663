"""Images in folders, one folder a class, decoded by Pillow when they are asked for."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from . import _check
from .dataset import ArrayDataset

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
_RUN = 16  # images a thread decodes in one go: handing small ones over singly costs more than decoding them


def read_image(
    path: str | os.PathLike[str],
    size: int | tuple[int, int] | None = None,
    mode: str = "RGB",
    resize: int | None = None,
) -> NDArray[np.uint8]:
    """Decode one image file: uint8 (c, h, w), channels-last in memory, upright (EXIF orientation applied).

    mode: "RGB", "L" (grey, one channel) or "RGBA".
    size: height and width of the result, one int for a square: the image is scaled, keeping its proportions,
    until it just covers them, and what sticks out is cropped evenly. None keeps the image's own size.
    resize: scale the shorter side to this first, in place of just covering `size`: ``size=224, resize=256``
    is the usual evaluation of ImageNet models.

    Raises FormatError if the file is not an image, is damaged or has more than 8 bits a channel; ImportError
    without Pillow; the usual OSError if it cannot be opened.
    """
    return _read(Path(path), _Geometry(size, mode, resize))


class _Geometry:
    """The checked arguments of a decoding."""

    def __init__(self, size: Any, mode: str, resize: Any):
        if mode not in _CHANNELS:
            raise ValueError(f"mode: got {mode!r}, wanted one of {', '.join(_CHANNELS)}")
        self.mode = mode
        self.size = None if size is None else _check.height_width("size", size)
        self.resize = None if resize is None else _check.integer("resize", resize, 1)
        if self.size and self.resize and self.resize < max(self.size):
            raise ValueError(
                f"resize: got {resize}, wanted at least {max(self.size)} to fill size {self.size}"
            )

    def box(self, height: int, width: int) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
        """For an image of this height and width: the result's (width, height), and the (left, top, right,
        bottom) of the source that fills it. Scaling and cropping in one step never holds a larger image than
        it gives.
        """
        if self.resize:
            scale = self.resize / min(height, width)
        elif self.size:
            scale = max(self.size[0] / height, self.size[1] / width)
        else:
            scale = 1.0
        oh, ow = self.size or (round(height * scale), round(width * scale))
        # What rounding takes beyond the image, Pillow would refuse.
        bh, bw = min(oh / scale, height), min(ow / scale, width)
        top, left = (height - bh) / 2, (width - bw) / 2
        return (ow, oh), (left, top, min(left + bw, width), min(top + bh, height))


def _read(path: Path, geometry: _Geometry) -> NDArray[np.uint8]:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("decoding images needs Pillow: pip install pycnn[image]") from error
    with path.open("rb") as file:
        try:
            image = ImageOps.exif_transpose(Image.open(file))
            if image.mode in ("I", "F") or ";" in image.mode:
                raise FormatError(f"{path}: pixels of mode {image.mode}, wanted 8 bits a channel")
            image = image.convert(geometry.mode)
            size, box = geometry.box(image.height, image.width)
            pixels = np.array(image.resize(size, Image.Resampling.BILINEAR, box))
        except (FormatError, MemoryError):
            raise
        except Exception as error:  # damaged files make Pillow raise nearly anything
            raise FormatError(f"{path}: not an image that Pillow can decode: {error}") from error
    return pixels.reshape(size[1], size[0], -1).transpose(2, 0, 1)


class ImageFolder:
    """Images in ``path/CLASS/**/*``: the class folders' names, sorted, are the classes.

    Files that are no images by their extension are passed over, and so are hidden files and folders. Images
    are decoded each time they are asked for, as `read_image` does, which tells of `size`, `mode` and
    `resize`.

    ``folder[i]`` is the pair (image uint8 (c, h, w), class number); ``folder.paths`` and ``folder.y`` list
    them all.

    Raises FileNotFoundError or NotADirectoryError for a bad path, ValueError if it has no class folders or
    one without images; on decoding, FormatError naming the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int | tuple[int, int] | None = None,
        mode: str = "RGB",
        resize: int | None = None,
    ):
        self._geometry = _Geometry(size, mode, resize)
        root = Path(path)
        self.classes = tuple(
            sorted(entry.name for entry in root.iterdir() if _visible(entry) and entry.is_dir())
        )
        if not self.classes:
            raise ValueError(f"path: {root} holds no class folders, wanted path/CLASS/image files")
        self.paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            found = _image_paths(root / name)
            if not found:
                raise ValueError(
                    f"path: class folder {root / name} holds no images "
                    f"(files that end in {' '.join(sorted(EXTENSIONS))})"
                )
            self.paths += found
            labels += [label] * len(found)
        self.y = np.array(labels, np.int64)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], np.int64]:
        return _read(self.paths[index], self._geometry), self.y[index]

    def gather(self, index: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Rows as a pair of arrays: images (m, c, h, w), channels-last in memory, and class numbers (m,).

        Decodes with a pool of threads. Raises ValueError if the images differ in size and `size` was not
        given.
        """
        rows = np.arange(len(self))[index]
        size = self._geometry.size
        if size is None:
            size = _read(self.paths[rows[0]], self._geometry).shape[1:] if len(rows) else (0, 0)
        x = np.empty((len(rows), *size, _CHANNELS[self._geometry.mode]), np.uint8)

        def decode(start: int) -> None:
            for slot in range(start, min(start + _RUN, len(rows))):
                path = self.paths[rows[slot]]
                image = _read(path, self._geometry)
                if image.shape[1:] != size:
                    raise ValueError(
                        f"{path}: height and width {image.shape[1:]} differ from {size} of "
                        f"{self.paths[rows[0]]}; give size= to bring all to one"
                    )
                x[slot] = image.transpose(1, 2, 0)

        with ThreadPoolExecutor() as pool:  # Pillow decodes and scales without the GIL
            list(pool.map(decode, range(0, len(rows), _RUN)))  # list() waits, and raises the first failure
        return x.transpose(0, 3, 1, 2), self.y[rows]

    def arrays(self) -> ArrayDataset:
        """All images decoded, in memory."""
        return ArrayDataset(*self.gather(slice(None)), classes=self.classes)

    def __repr__(self) -> str:
        return f"ImageFolder({len(self)} images, {self.num_classes} classes)"


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _image_paths(folder: Path) -> list[Path]:
    found = []
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names)
        found += [path for path in paths if _visible(path) and path.suffix.lower() in EXTENSIONS]
    return sorted(found)
