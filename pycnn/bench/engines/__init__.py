"""The contestants: pycnn, its peers, and the machine itself.

Each engine turns a case into variants of work: the same result by different layouts or calls of the library, so that
the library can be taken at its best.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pycnn.bench.cases import Case


@dataclass
class Work:
    """What is timed, and how to see that it did what it should.

    call: runs once and returns what it computed; that is freed within the time measured, as it is in use.
    result: from what call returned, the array that all contestants agree on, in logical shape.
    amount: flops or bytes of a call, where only the engine knows them.
    holds: memory that the library works on without owning it.
    """

    call: Callable[[], Any]
    result: Callable[[Any], Any] | None = None
    amount: float = 0.0
    holds: Any = None


class Engine(Protocol):
    def describe(self) -> dict[str, str]:
        """Versions and settings that matter to speed."""

    def use_threads(self, threads: int) -> None:
        """Called before work of a case with so many threads is made or run."""

    def prepare(self, case: Case) -> dict[str, Work]:
        """Variants by name; none if the library has no such operation."""


# By name: the module in this package, and the packages it needs.
_ENGINES: dict[str, tuple[str, tuple[str, ...]]] = {
    "machine": ("machine", ()),
    "pycnn": ("own", ()),
    "torch": ("pytorch", ("torch",)),
    "onnxruntime": ("onnx_runtime", ("onnx", "onnxruntime")),
    "openvino": ("open_vino", ("onnx", "openvino")),
}
PEERS = ("torch", "onnxruntime", "openvino")


def missing(name: str) -> list[str]:
    """Packages that the engine needs and that are not installed."""
    return [package for package in _ENGINES[name][1] if importlib.util.find_spec(package) is None]


def create(name: str, threads: int) -> Engine:
    module = importlib.import_module(f"pycnn.bench.engines.{_ENGINES[name][0]}")
    engine: Engine = module.create(threads)
    return engine
