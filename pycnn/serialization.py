"""Weights in files, as safetensors: plain numbers under names, nothing that is run on reading.

PyTorch's .pth files can be read, without running what they say.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pycnn import _pth
from pycnn._core import cpu_info
from pycnn.errors import FormatError
from pycnn.nn import Module
from pycnn.parameter import Array

_SUFFIX = ".safetensors"
PYTORCH_SUFFIXES = (".pth", ".pt")
_DTYPES = {
    "float64": "F64",
    "int64": "I64",
    "float32": "F32",
    "int32": "I32",
    "float16": "F16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path, if its name says safetensors; ValueError otherwise."""
    checked = Path(path)
    if checked.suffix != _SUFFIX:
        raise ValueError(f"path: got {str(path)!r}, expected a name that ends in {_SUFFIX}")
    return checked


def save(model: Module, path: str | os.PathLike[str], metadata: dict[str, str] | None = None) -> None:
    """Writes parameters and buffers, under their names in `state_dict`, to a .safetensors file.

    The file appears in one go: whatever interrupts the writing, there is the old one or the new one.

    Args:
        model: whose weights.
        path: name of the file, ending in .safetensors.
        metadata: further texts by name, kept in the file's header beside 'format' and 'pycnn_version'.

    Equal weights and metadata give equal bytes.

    Raises:
        ValueError: another ending. TypeError: metadata that are no texts. OSError: it cannot be written.
    """
    target = check_path(path)
    if not isinstance(model, Module):
        raise TypeError(f"model: got {type(model).__name__}, expected pycnn.nn.Module")
    write_tensors(model.state_dict(), target, metadata)


def write_tensors(
    tensors: dict[str, Array], path: str | os.PathLike[str], metadata: dict[str, str] | None = None
) -> None:
    """Writes arrays by name, as `save` does those of a model."""
    target = check_path(path)
    texts = {"format": "pycnn", "pycnn_version": cpu_info()["version"], **(metadata or {})}
    for name, text in texts.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(f"metadata: got {name!r}: {type(text).__name__}, expected str: str")
    header, arrays = _layout(tensors, texts)
    with replacing(target) as file:
        file.write(header)
        for array in arrays:
            file.write(array.data)


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `target`, in one go, if no error comes."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _layout(state: dict[str, Array], texts: dict[str, str]) -> tuple[bytes, list[Array]]:
    """What the file begins with, and the arrays that follow. Not by the safetensors package: its writer puts the
    metadata in an order that changes from run to run."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(texts.items()))}
    arrays = []
    end = 0
    for name, array in sorted(state.items(), key=lambda item: (-item[1].itemsize, item[0])):  # so all are aligned
        if str(array.dtype) not in _DTYPES:
            raise TypeError(f"tensors: {name} is of {array.dtype}, expected one of {', '.join(_DTYPES)}")
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[str(array.dtype)], "shape": array.shape, "data_offsets": (begin, end)}
        arrays.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, arrays


def load_weights(model: Module, path: str | os.PathLike[str], strict: bool = True) -> tuple[list[str], list[str]]:
    """Reads a file into the model's parameters and buffers; nothing is changed unless everything fits.

    Args:
        model: what gets the weights; float32 and float64 are converted into each other.
        path: name of the file, ending in .safetensors, or in .pth or .pt for what torch.save wrote: a state dict, or a
            checkpoint with one under 'state_dict'.
        strict: raise if names are missing or unexpected.

    Returns:
        (names that the file lacks, names that the model lacks).

    Raises:
        FormatError: the file is damaged, or asks for more than a state dict. ValueError: another ending, or names,
        shapes or types that do not fit. OSError: it cannot be read.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: got {type(model).__name__}, expected pycnn.nn.Module")
    tensors = read_tensors(path)
    for name, own in model.state_dict().items():
        if name in tensors and (tensors[name].dtype.kind == "f") != (own.dtype.kind == "f"):
            raise ValueError(f"{path}: {name} is {tensors[name].dtype}, expected {own.dtype}")
    return model.load_state_dict(tensors, strict)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The tensors in a file by name, for `load_state_dict` after names were changed.

    Args:
        path: name of the file, ending in .safetensors, .pth or .pt; of the latter float16 and bfloat16 become float32.

    Raises:
        As `load_weights`.
    """
    source = Path(path)
    if source.suffix in PYTORCH_SUFFIXES:
        return _pth.read(source)
    if source.suffix != _SUFFIX:
        expected = ", ".join((_SUFFIX, *PYTORCH_SUFFIXES))
        raise ValueError(f"path: got {str(path)!r}, expected a name that ends in one of {expected}")
    return _read(source)[0]


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts in the header of a .safetensors file.

    Raises:
        FormatError: the file is damaged. ValueError: another ending. OSError: it cannot be read.
    """
    return _read(path, tensors=False)[1]


def _read(path: str | os.PathLike[str], tensors: bool = True) -> tuple[dict[str, Array], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    source = check_path(path)
    with source.open("rb"):  # for the usual OSError: safetensors has words of its own
        pass
    arrays: dict[str, Array] = {}
    try:
        with safe_open(source, framework="np") as file:
            texts = dict(file.metadata() or {})
            for name in file.keys() if tensors else ():
                arrays[name] = np.array(file.get_tensor(name))
    except (SafetensorError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise FormatError(f"{source}: no whole safetensors file of NumPy's types: {error}") from error
    return arrays, texts
