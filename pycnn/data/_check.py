"""Argument checks shared by the data package: each error names the argument, what came and what is wanted."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE_DTYPES = (np.dtype(np.uint8), np.dtype(np.float32))


def integer(name: str, value: Any, minimum: int) -> int:
    """`value` as an int of at least `minimum`; bools and floats are refused."""
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}), wanted an integer")
    value = operator.index(value)
    if value < minimum:
        raise ValueError(f"{name}: got {value}, wanted an integer >= {minimum}")
    return value


def real(name: str, value: Any, minimum: float, maximum: float) -> float:
    """`value` as a finite float in [minimum, maximum]."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}), wanted a number") from None
    if not (minimum <= number <= maximum and np.isfinite(number)):
        raise ValueError(f"{name}: got {value!r}, wanted a finite number in [{minimum:g}, {maximum:g}]")
    return number


def pair(name: str, value: Any) -> tuple[Any, Any]:
    """`value` as a tuple of two."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)) or len(value) != 2:
        raise TypeError(f"{name}: got {value!r}, wanted a pair")
    return value[0], value[1]


def height_width(name: str, value: Any) -> tuple[int, int]:
    """An int (a square) or a pair (height, width), each at least 1."""
    height, width = pair(name, value) if isinstance(value, (tuple, list)) else (value, value)
    return integer(name, height, 1), integer(name, width, 1)


def images(name: str, x: Any) -> NDArray[Any]:
    """`x` as an array of shape (n, c, h, w), uint8 or float32."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name}: got {type(x).__name__}, wanted a NumPy array")
    if x.dtype not in IMAGE_DTYPES:
        raise TypeError(f"{name}: got dtype {x.dtype}, wanted uint8 or float32")
    if x.ndim != 4:
        raise ValueError(f"{name}: got shape {x.shape}, wanted (n, channels, height, width)")
    return x


def generator(rng: Any) -> np.random.Generator:
    """`rng` itself, if it is a numpy.random.Generator."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: got {type(rng).__name__}, wanted a numpy.random.Generator")
    return rng
