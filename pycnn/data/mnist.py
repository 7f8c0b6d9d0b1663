"""MNIST: handwritten digits, 28x28, grey (LeCun, Cortes, Burges; CC BY-SA 3.0)."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Sequence
from gzip import GzipFile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from . import _strokes
from .dataset import ArrayDataset, Splits
from .idx import read_idx

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_BUNDLED = Path(__file__).parent / "mnist5k"
_HELD_OUT = 1000
_GZIP_MAY_ADD = 1 << 16
_TIMEOUT = 30.0  # seconds without an answer before the next mirror is asked


class _Published(NamedTuple):
    """What a published file holds once uncompressed: mirrors may compress it differently."""

    size: int
    sha256: str


_FILES = {
    "train-images-idx3-ubyte": _Published(
        47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": _Published(
        60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte": _Published(
        7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": _Published(
        10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}


def mnist(root: str | os.PathLike[str], download: bool = False, mirrors: Sequence[str] = MIRRORS) -> Splits:
    """MNIST, or kin in files of the same names (Fashion-MNIST, KMNIST), from the folder `root`.

    Returns (train, test), for MNIST 60,000 and 10,000 images: x uint8 (n, 1, 28, 28), y int64 (n,), ten
    classes. The four files ``train-images-idx3-ubyte`` and so on may be gzipped, then their names end in
    ``.gz``.

    download: fetch the files of MNIST that `root` lacks from the first of `mirrors` (base URLs) that has
    them. All four, those already there too, must then match the published SHA-256 checksums.

    Raises FileNotFoundError if a file is missing, FormatError if one is damaged or not of MNIST's shape, and
    ConnectionError, with every mirror's answer, if a download fails.
    """
    root = Path(root)
    if download:
        _download(root, mirrors)
    return Splits(_part(root, "train"), _part(root, "t10k"))


def mnist5k() -> Splits:
    """The 5,000 real MNIST digits that come with the package, 500 a class.

    Returns (train, test), the split always the same: 4,000 and 1,000 images, 400 and 100 a class, x uint8
    (n, 1, 28, 28), y int64 (n,). They are the first 500 of each class in MNIST's training set; the last 100
    of these are the test part. ``mnist5k/SOURCE.md`` beside this module tells source and licence.

    Raises ImportError if this Python has no lzma module, which unpacks them.
    """
    by_class = _strokes.unpack((_BUNDLED / "images.xz").read_bytes(), (5000, 28, 28)).reshape(10, 500, 28, 28)
    x = by_class.swapaxes(0, 1).reshape(5000, 1, 28, 28)
    digits = ArrayDataset(x, np.tile(np.arange(10), 500), classes="0123456789")
    return Splits(digits[:-_HELD_OUT], digits[-_HELD_OUT:])


def _part(root: Path, prefix: str) -> ArrayDataset:
    paths = []
    for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        path = _find(root, name)
        if path is None:
            raise FileNotFoundError(f"root: no {name} or {name}.gz in {root} (download=True fetches MNIST)")
        paths.append(path)
    return _dataset(*paths)


def _find(root: Path, name: str) -> Path | None:
    return next((path for path in (root / name, root / f"{name}.gz") if path.is_file()), None)


def _dataset(image_path: Path, label_path: Path) -> ArrayDataset:
    x, y = read_idx(image_path), read_idx(label_path)
    _expect(image_path, x, (len(x), 28, 28))
    _expect(label_path, y, (len(x),))
    if y.size and y.max() > 9:
        raise FormatError(f"{label_path}: label {y.max()}, wanted 0 to 9")
    return ArrayDataset(x[:, None], y, classes="0123456789")


def _expect(path: Path, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.dtype.name != "uint8" or array.shape != shape:
        raise FormatError(f"{path}: {array.dtype} of shape {array.shape}, wanted uint8 of shape {shape}")


def _download(root: Path, mirrors: Sequence[str]) -> None:
    if isinstance(mirrors, str) or not mirrors:
        raise ValueError(f"mirrors: got {mirrors!r}, wanted a sequence of one or more base URLs")
    root.mkdir(parents=True, exist_ok=True)
    for name, published in _FILES.items():
        path = _find(root, name)
        if path is None:
            _write_atomically(root / f"{name}.gz", _fetch(f"{name}.gz", published, mirrors))
        else:
            problem = _mismatch(path.read_bytes(), published)
            if problem:
                raise FormatError(f"{path}: {problem}; remove it to download it anew")


def _fetch(name: str, published: _Published, mirrors: Sequence[str]) -> bytes:
    # Imported here: they take longer than the whole package, and only a download needs them.
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    answers = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        request = urllib.request.Request(url, headers={"User-Agent": "pycnn"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                content = response.read(published.size + _GZIP_MAY_ADD)  # no mirror can fill the memory
        except (OSError, HTTPException) as error:
            answers.append(f"{url}: {error}")
            continue
        problem = _mismatch(content, published)
        if problem is None:
            return content
        answers.append(f"{url}: {problem}")
    raise ConnectionError(f"download: no mirror gave {name}: " + "; ".join(answers))


def _mismatch(content: bytes, published: _Published) -> str | None:
    """What is wrong with a file's content, gzipped or not; None if it is the published one."""
    import hashlib

    if content[:2] == b"\x1f\x8b":
        try:
            content = GzipFile(fileobj=io.BytesIO(content)).read(published.size + 1)
        except (OSError, EOFError, zlib.error) as error:
            return f"damaged gzip data: {error}"
    digest = hashlib.sha256(content).hexdigest()
    if digest == published.sha256:
        return None
    return f"SHA-256 of the uncompressed content is {digest}, wanted {published.sha256}"


def _write_atomically(path: Path, content: bytes) -> None:
    """Under its name there is never half a file, also when the process is killed or two download at once."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
