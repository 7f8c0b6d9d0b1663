"""pycnn: convolutional networks on the CPU, trained and run by a small C engine.

    import numpy as np, pycnn
    from pycnn import nn

    conv = nn.Conv2d(3, 8, kernel_size=3, padding=1)
    y = conv(np.zeros((1, 3, 32, 32), np.float32))      # (1, 8, 32, 32)
    dx = conv.backward(np.ones_like(y))                 # gradients in conv.weight.grad, conv.bias.grad
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pycnn import functional, nn
from pycnn._core import cpu_info, get_num_threads, set_num_threads
from pycnn.errors import FormatError
from pycnn.random import manual_seed

if TYPE_CHECKING:
    from pycnn import callbacks, data, losses, models, onnx, optim, regularizers, sklearn
    from pycnn._config import cmake_dir, get_include, get_library_dir
    from pycnn._fold import fold_batchnorm
    from pycnn._summary import summary
    from pycnn.plan import Plan, compile, load
    from pycnn.serialization import load_weights, save
    from pycnn.trainer import Trainer

__version__ = cpu_info()["version"]

# What an import of the package need not pay for.
_LAZY_MODULES = ("callbacks", "data", "losses", "models", "onnx", "optim", "regularizers", "sklearn")
_LAZY_NAMES = {
    "Plan": "pycnn.plan",
    "Trainer": "pycnn.trainer",
    "cmake_dir": "pycnn._config",
    "compile": "pycnn.plan",
    "fold_batchnorm": "pycnn._fold",
    "get_include": "pycnn._config",
    "get_library_dir": "pycnn._config",
    "load": "pycnn.plan",
    "load_weights": "pycnn.serialization",
    "save": "pycnn.serialization",
    "summary": "pycnn._summary",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"pycnn.{name}")
    if name in _LAZY_NAMES:
        value = getattr(importlib.import_module(_LAZY_NAMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pycnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "FormatError",
    "Plan",
    "Trainer",
    "__version__",
    "callbacks",
    "cmake_dir",
    "compile",
    "cpu_info",
    "data",
    "fold_batchnorm",
    "functional",
    "get_include",
    "get_library_dir",
    "get_num_threads",
    "load",
    "load_weights",
    "losses",
    "manual_seed",
    "models",
    "nn",
    "onnx",
    "optim",
    "regularizers",
    "save",
    "set_num_threads",
    "sklearn",
    "summary",
]
