"""Reading arguments: numbers, pairs, paddings, with errors that name the argument."""

from __future__ import annotations

import numbers
import operator
from typing import Any

_LARGEST = 2**62  # leaves the engine's 64-bit arithmetic room to check sums


def integer(value: Any, name: str, least: int | None = None) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name}: got bool, expected int")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: got {type(value).__name__}, expected int") from None
    if least is not None and number < least:
        raise ValueError(f"{name}: got {number}, expected at least {least}")
    if abs(number) > _LARGEST:
        raise ValueError(f"{name}: got {number}, expected at most {_LARGEST}")
    return number


def pair(value: Any, name: str, least: int | None = None) -> tuple[int, int]:
    """An int for both directions, or (rows, columns)."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name}: got {len(value)} values {tuple(value)}, expected an int or (rows, columns)")
        return integer(value[0], name, least), integer(value[1], name, least)
    number = integer(value, name, least)
    return number, number


def sides(value: Any, name: str = "padding") -> tuple[int, int, int, int]:
    """Padding as (top, left, bottom, right), from an int, (rows, columns) or all four."""
    if isinstance(value, (tuple, list)) and len(value) == 4:
        top, left, bottom, right = (integer(v, name, 0) for v in value)
        return top, left, bottom, right
    if isinstance(value, (tuple, list)) and len(value) != 2:
        raise ValueError(
            f"{name}: got {len(value)} values {tuple(value)}, expected an int, (rows, columns) or "
            "(top, left, bottom, right)"
        )
    rows, columns = pair(value, name, 0)
    return rows, columns, rows, columns


def real(value: Any, name: str, least: float | None = None, most: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a number")
    number = float(value)
    if number != number:
        raise ValueError(f"{name}: got nan, expected a number")
    if least is not None and number < least:
        raise ValueError(f"{name}: got {number}, expected at least {least}")
    if most is not None and number > most:
        raise ValueError(f"{name}: got {number}, expected at most {most}")
    return number


def choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, choices))}")
    return str(value)
