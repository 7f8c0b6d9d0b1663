"""Where the C library lies, for programs and extension modules that build against it; the command ``pycnn-config``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parent


def get_include() -> str:
    """The folder of ``cnn_core.h`` (the library) and ``cnn_api.h`` (the core that runs inside Python), for ``-I``."""
    return str(_PACKAGE / "include")


def get_library_dir() -> str:
    """The folder of the static library ``cnn_core``, for ``-L``; ``pkgconfig/cnn_core.pc`` lies in it."""
    return str(_PACKAGE / "lib")


def cmake_dir() -> str:
    """The folder of ``cnn_core-config.cmake``, for ``-Dcnn_core_DIR=``."""
    return str(_PACKAGE / "lib" / "cmake" / "cnn_core")


def _flags(field: str) -> str:
    """The field `field` of the pkg-config file, quoted for a shell where paths need it."""
    lines = Path(get_library_dir(), "pkgconfig", "cnn_core.pc").read_text(encoding="utf-8").splitlines()
    [text] = [line.removeprefix(f"{field}: ") for line in lines if line.startswith(f"{field}: ")]
    folders = {"${includedir}": get_include(), "${libdir}": get_library_dir()}
    for name, folder in folders.items():
        text = text.replace(name, shlex.quote(folder))
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``pycnn-config``: prints what is asked for, in the order of the list, on one line."""
    from pycnn import __version__

    parser = argparse.ArgumentParser(prog="pycnn-config", description="What a build against the C library needs.")
    values = {
        "cflags": (lambda: _flags("Cflags"), "flags for the compiler"),
        "libs": (lambda: _flags("Libs"), "flags for the linker"),
        "includedir": (get_include, "the folder of the headers"),
        "libdir": (get_library_dir, "the folder of the static library"),
        "cmakedir": (cmake_dir, "the folder of the CMake package"),
        "version": (lambda: __version__, "the version"),
    }
    for name, (_, text) in values.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    asked = vars(parser.parse_args(argv))
    if not any(asked.values()):
        parser.error("nothing asked for: give one or more of " + " ".join(f"--{name}" for name in values))
    print(*(value() for name, (value, _) in values.items() if asked[name]))
    return 0
