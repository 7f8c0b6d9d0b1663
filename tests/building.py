"""Compiles programs and extension modules against the installed package, as its users do."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

import pycnn

ROOT = Path(__file__).parents[1]
WARNINGS = ["-Wall", "-Wextra", "-Werror"]


def need(*programs: str) -> list[str]:
    """The full paths of programs. Skips the test where one is missing: who has a wheel needs no compiler."""
    paths = [shutil.which(program) for program in programs]
    for program, path in zip(programs, paths, strict=True):
        if path is None:
            pytest.skip(f"{program} is not installed")
    return [path for path in paths if path is not None]


def run(*command: str | Path, **keywords) -> str:
    """Runs a command and returns what it printed; on failure the test shows all of it."""
    words = [str(word) for word in command]
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(words, text=True, timeout=300, **both, **keywords)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}"
    return done.stdout


def config(*options: str) -> list[str]:
    """The words that `pycnn-config` prints."""
    return shlex.split(run(Path(sysconfig.get_path("scripts"), "pycnn-config"), *options))


def compile_program(source: Path, folder: Path) -> Path:
    """A program of one C or C++ file, linked with the static library."""
    language = {".c": "CC", ".cpp": "CXX"}[source.suffix]
    compiler = shlex.split(os.environ.get(language, language.lower().replace("xx", "++")))
    need(compiler[0])
    standard = {"CC": "-std=c11", "CXX": "-std=c++17"}[language]
    target = folder / source.stem
    flags = ["-O2", standard, *WARNINGS, *config("--cflags")]
    run(*compiler, *flags, source, "-o", target, *config("--libs"), "-pthread")
    return target


def compile_module(source: Path, folder: Path) -> ModuleType:
    """An extension module of one C, C++ or Cython file that is linked with nothing of pycnn."""
    [compiler, *options] = shlex.split(os.environ.get("CC", "cc"))
    need(compiler)
    if source.suffix == ".pyx":
        cython = pytest.importorskip("Cython.Build.Cythonize", reason="the extra `test` brings Cython")
        shutil.copy(source, folder)
        cython.main(["--quiet", str(folder / source.name)])
        source = folder / f"{source.stem}.c"
    target = folder / f"{source.stem}{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = ["-I", pycnn.get_include(), "-I", sysconfig.get_path("include")]
    shared = ["-undefined", "dynamic_lookup", "-bundle"] if os.uname().sysname == "Darwin" else ["-shared"]
    run(compiler, *options, "-O1", "-fPIC", *include, *shared, source, "-o", target)
    return load_module(source.stem, target)


def load_module(name: str, path: Path) -> ModuleType:
    """Imports the extension module in `path`."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
