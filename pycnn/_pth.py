"""State dicts that PyTorch wrote, read without PyTorch.

Such a file holds a pickle, which is a program. It is not given to Python's interpreter of pickles, which could be told
to call anything: the few instructions that state dicts consist of are carried out here, and they can make nothing but
numbers, texts, containers of them and tensors.

A file of today is a ZIP archive of the pickle and the tensors' memory. One of PyTorch before 1.6 is a row of pickles
with the memory behind them. Format: torch/serialization.py, torch/_utils.py.
"""

from __future__ import annotations

import errno
import io
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from pycnn.errors import FormatError
from pycnn.parameter import Array

_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # the first pickle before PyTorch 1.6
_PROTOCOL = 1001  # the second
_EXPECTED = "expected a state dict, as torch.save(model.state_dict(), path) writes"
_DAMAGE = (EOFError, LookupError, OverflowError, RuntimeError, TypeError, ValueError, struct.error, zipfile.BadZipFile)

# Element types by PyTorch's name. NumPy has no bfloat16, the upper half of a float32.
_BFLOAT16 = "BFloat16Storage"
_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    _BFLOAT16: "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read(path: Path) -> dict[str, Array]:
    """The tensors in a .pth file by name, as read-only arrays; float16 and bfloat16 become float32.

    Raises:
        FormatError: the file is damaged, holds something else than a state dict, or asks for a function or a class that
            a state dict has no use for. OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
        file.seek(0)
        try:
            if start == _MAGIC:
                return _read_legacy(file)
            return _read_archive(file)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from None
        except (*_DAMAGE, OSError) as error:
            # zipfile seeks wherever the archive says, before its start, too.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise FormatError(f"{path}: no whole file of torch.save: {error}") from error


# ---- the two forms of file -------------------------------------------------------------------------------------------


def _read_archive(file: IO[bytes]) -> dict[str, Array]:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise FormatError(f"got an archive with {len(pickles)} files data.pkl; {_EXPECTED}")
        folder = pickles[0].removesuffix("data.pkl")

        def content(name: str) -> bytes:
            entry = archive.getinfo(folder + name)
            if entry.compress_type != zipfile.ZIP_STORED:  # PyTorch compresses nothing; a small file stays small
                raise FormatError(f"{entry.filename} is compressed; {_EXPECTED}")
            return archive.read(entry)

        told = folder + "byteorder" in archive.namelist()
        order = _order(not told or content("byteorder") != b"big")
        storages: dict[str, _Storage] = {}
        tensors = _tensors(_run(io.BytesIO(content("data.pkl")), storages))
        for key in {tensor.storage.key for tensor in tensors.values()}:
            storages[key].fill(content(f"data/{key}"), order)
    return {name: tensor.array() for name, tensor in tensors.items()}


def _read_legacy(file: IO[bytes]) -> dict[str, Array]:
    storages: dict[str, _Storage] = {}
    _run(file, storages)
    protocol, system = _run(file, storages), _run(file, storages)
    if protocol != _PROTOCOL:
        raise FormatError(f"got protocol {protocol}, expected {_PROTOCOL}")
    order = _order(system["little_endian"])
    tensors = _tensors(_run(file, storages))
    for key in _run(file, storages):
        (count,) = struct.unpack(f"{order}q", file.read(8))
        storage = storages[key]
        if count != storage.count:
            raise FormatError(f"got {count} elements for tensor memory {key}, expected {storage.count}")
        storage.fill(file.read(count * storage.dtype.itemsize), order)
    return {name: tensor.array() for name, tensor in tensors.items()}


def _order(little_endian: bool) -> Literal["<", ">"]:
    return "<" if little_endian else ">"


def _tensors(root: Any) -> dict[str, _Tensor]:
    """The state dict, by itself or in a checkpoint."""
    if isinstance(root, dict) and isinstance(root.get("state_dict"), dict):
        root = root["state_dict"]
    if not isinstance(root, dict):
        raise FormatError(f"got {type(root).__name__.lstrip('_')}; {_EXPECTED}")
    for name, value in root.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise FormatError(f"got {type(value).__name__.lstrip('_')} under {name!r}; {_EXPECTED}")
    return root


# ---- tensors ---------------------------------------------------------------------------------------------------------


class _Storage:
    """Memory that tensors are views of; known at first by its size alone."""

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.kind, self.key, self.count = kind, key, count
        self.dtype = np.dtype(_STORAGES[kind])
        self.values: Array | None = None

    def fill(self, content: bytes, order: Literal["<", ">"]) -> None:
        if len(content) != self.count * self.dtype.itemsize:
            raise FormatError(
                f"got {len(content)} bytes for tensor memory {self.key}, expected {self.count} elements of "
                f"{self.dtype.itemsize} bytes"
            )
        values = np.frombuffer(content, self.dtype.newbyteorder(order)).astype(self.dtype, copy=False)
        if self.kind == _BFLOAT16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        elif self.dtype == np.float16:
            values = values.astype(np.float32)
        self.values = values


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> Array:
        """A view, within the storage's bounds."""
        values = self.storage.values
        if values is None:
            raise FormatError(f"tensor memory {self.storage.key} is missing")
        numbers = (self.offset, *self.size, *self.stride)
        sound = len(self.size) == len(self.stride) and all(type(n) is int and n >= 0 for n in numbers)
        if sound and 0 in self.size:
            return np.zeros(self.size, values.dtype)
        if not sound or self._last() >= self.storage.count:
            raise FormatError(
                f"got a tensor of shape {self.size}, strides {self.stride} at {self.offset} in tensor memory "
                f"{self.storage.key} of {self.storage.count} elements"
            )
        steps = [step * values.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(values[self.offset :], self.size, steps, writeable=False)

    def _last(self) -> int:
        """Where its last element lies."""
        return self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))


# ---- the pickle ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """A class of PyTorch's that names the type of elements."""

    name: str


@dataclass(frozen=True)
class _Function:
    """What may be called."""

    call: Callable[..., Any]


def _make_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
    if not (isinstance(storage, _Storage) and isinstance(size, tuple) and isinstance(stride, tuple)):
        raise FormatError("got a tensor of other things than memory, offset, shape and strides")
    return _Tensor(storage, offset, size, stride)


_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": _Function(lambda: {}),
    "torch._utils._rebuild_tensor_v2": _Function(_make_tensor),
    "torch._utils._rebuild_parameter": _Function(lambda data, requires_grad, hooks: data),
    **{f"torch.{name}": _Kind(name) for name in _STORAGES},
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def _global(name: str) -> Any:
    if name not in _GLOBALS:
        raise FormatError(f"asks for {name}, which is refused; {_EXPECTED}")
    return _GLOBALS[name]


def _storage(identity: Any, storages: dict[str, _Storage]) -> _Storage:
    """For ('storage', kind, key, device, count), with None behind it in the older form."""
    word, kind, key, _, count, *view = identity
    numbers = type(count) is int and count >= 0
    if word != "storage" or not isinstance(kind, _Kind) or not isinstance(key, str) or not numbers or any(view):
        raise FormatError("got tensor memory that is described in another way than PyTorch's")
    found = storages.setdefault(key, _Storage(kind.name, key, count))
    if (found.kind, found.count) != (kind.name, count):
        raise FormatError(f"tensor memory {key} is described in two ways")
    return found


def _set_items(target: Any, items: list[Any]) -> None:
    keys = items[::2]
    if not isinstance(target, dict) or not all(isinstance(key, (str, int)) for key in keys):
        raise FormatError("got items of another thing than a dict, or with keys that are no texts or integers")
    target.update(zip(keys, items[1::2], strict=True))


def _append(target: Any, items: list[Any]) -> None:
    if not isinstance(target, list):
        raise FormatError("got items of another thing than a list")
    target += items


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Function):
        raise FormatError("calls what is no function")
    return function.call(*arguments)


def _run(code: IO[bytes], storages: dict[str, _Storage]) -> Any:
    """Carries out one pickle, and leaves `code` behind it; adds the storages it names."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # stacks put aside by marks
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(code):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(_CONSTANTS[opcode.name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE":
                items = since_mark()
                stack.append(tuple(items))
            case "SETITEM":
                items = [stack.pop(-2), stack.pop()]
                _set_items(stack[-1], items)
            case "SETITEMS":
                items = since_mark()
                _set_items(stack[-1], items)
            case "APPEND":
                item = stack.pop()
                _append(stack[-1], [item])
            case "APPENDS":
                items = since_mark()
                _append(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_global(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(_global(f"{stack.pop()}.{name}"))
            case "BINPERSID":
                stack.append(_storage(stack.pop(), storages))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":  # attributes of an OrderedDict: the versions of the modules it came from
                stack.pop()
            case "STOP":
                return stack.pop()
            case _:
                raise FormatError(f"got the pickle instruction {opcode.name}; {_EXPECTED}")
    raise FormatError("the pickle has no end")
