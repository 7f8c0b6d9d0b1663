"""IDX: the array file format of MNIST and its kin.

Layout, all numbers big-endian (http://yann.lecun.com/exdb/mnist, "The IDX file format"): two zero bytes, a
code for the element type, the number of dimensions, each dimension as uint32, then the elements, last
dimension fastest.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an IDX file, gzipped or not (its first bytes tell, not its name).

    Returns a new C-contiguous array in native byte order: uint8, int8, int16, int32, float32 or float64.
    Raises FormatError if the file is anything but one whole IDX array: wrong magic, unknown type code, no
    dimensions, too few or too many elements, damaged compression.
    """
    path = Path(path)
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        file.seek(0)
        if not compressed:
            return _parse(file, path)
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                return _parse(stream, path)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise FormatError(f"{path}: damaged gzip data: {error}") from error


def _parse(stream: BinaryIO | gzip.GzipFile, path: Path) -> NDArray[Any]:
    magic = _read_up_to(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise FormatError(
            f"{path}: not an IDX file: begins with {bytes(magic)!r}, wanted two zero bytes, "
            "a type code and a number of dimensions"
        )
    code, rank = magic[2], magic[3]
    if code not in _DTYPES:
        known = " ".join(f"0x{c:02x}" for c in _DTYPES)
        raise FormatError(f"{path}: IDX type code is 0x{code:02x}, wanted one of {known}")
    if rank == 0:
        raise FormatError(f"{path}: IDX header has 0 dimensions, wanted at least 1")
    header = _read_up_to(stream, 4 * rank)
    if len(header) < 4 * rank:
        raise FormatError(f"{path}: truncated: {len(header)} bytes of dimensions, wanted {4 * rank}")
    shape = struct.unpack(f">{rank}I", header)
    dtype = _DTYPES[code]
    wanted = math.prod(shape) * dtype.itemsize
    data = _read_up_to(stream, wanted)
    if len(data) < wanted:
        raise FormatError(f"{path}: truncated: {len(data)} bytes of data, wanted {wanted} for shape {shape}")
    # Reading on to the end also makes gzip compare its checksum.
    if stream.read(1):
        raise FormatError(f"{path}: bytes follow the {wanted} bytes of data that shape {shape} wants")
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:
        raise FormatError(f"{path}: shape {shape} is more than an array can have: {error}") from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_up_to(stream: BinaryIO | gzip.GzipFile, size: int) -> bytearray:
    """At most `size` bytes, in chunks: memory follows what the file holds, not what its header claims."""
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(_CHUNK, size - len(data)))
        if not chunk:
            break
        data += chunk
    return data


def write_idx(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write `array` as an IDX file, gzipped if the name ends in ``.gz``; equal arrays give equal bytes.

    Raises TypeError for element types that IDX lacks, ValueError for shapes it cannot hold.
    """
    path = Path(path)
    array = np.asarray(array)
    dtype = array.dtype.newbyteorder(">")
    if dtype not in _CODES:
        known = ", ".join(str(d.newbyteorder("=")) for d in _CODES)
        raise TypeError(f"array: got dtype {array.dtype}, wanted one of {known}")
    if array.ndim == 0 or max(array.shape) > 0xFFFFFFFF:
        raise ValueError(f"array: got shape {array.shape}, wanted at least 1 dimension, each below 2**32")
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, _CODES[dtype], array.ndim, *array.shape)
    content += array.astype(dtype, copy=False).tobytes()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)
