"""Networks ready to train: functions that make them, with `num_classes` and `in_channels`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycnn.models.digits import DigitsCNN, digits_cnn
from pycnn.models.lenet import LeNet5, lenet5
from pycnn.nn import Module

_MAKERS: dict[str, Callable[..., Module]] = {maker.__name__: maker for maker in (digits_cnn, lenet5)}


def names() -> list[str]:
    """What `create` knows."""
    return sorted(_MAKERS)


def create(name: str, **arguments: Any) -> Module:
    """The network of that name, as `create("lenet5", num_classes=10)`. ValueError, listing the names, for another."""
    if name not in _MAKERS:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(names())}")
    return _MAKERS[name](**arguments)


__all__ = ["DigitsCNN", "LeNet5", "create", "digits_cnn", "lenet5", "names"]
