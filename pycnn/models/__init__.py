"""Networks ready to train: functions that make them, with `num_classes` and `in_channels`.

Parameters have the names, order and shapes of torchvision's networks, or of those that each docstring names, so that
their weights fit; initial values are drawn from the same distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pycnn.models.digits import DigitsCNN, digits_cnn
from pycnn.models.lenet import LeNet5, lenet5
from pycnn.models.mobilenet import MobileNetV2, mobilenet_v2
from pycnn.models.resnet import ResNet, resnet18, resnet34, resnet50
from pycnn.models.resnet_cifar import CifarResNet, resnet20_cifar
from pycnn.models.unet import UNet, unet
from pycnn.models.vgg import VGG, vgg11_bn
from pycnn.nn import Module


class _Entry(NamedTuple):
    maker: Callable[..., Module]
    input_shape: tuple[int, int, int]


_PHOTOGRAPHS = (3, 224, 224)
_ENTRIES = {
    entry.maker.__name__: entry
    for entry in (
        _Entry(digits_cnn, (1, 28, 28)),
        _Entry(lenet5, (1, 28, 28)),
        _Entry(mobilenet_v2, _PHOTOGRAPHS),
        _Entry(resnet18, _PHOTOGRAPHS),
        _Entry(resnet20_cifar, (3, 32, 32)),
        _Entry(resnet34, _PHOTOGRAPHS),
        _Entry(resnet50, _PHOTOGRAPHS),
        _Entry(unet, (3, 256, 256)),
        _Entry(vgg11_bn, _PHOTOGRAPHS),
    )
}


def names() -> list[str]:
    """What `create` knows."""
    return sorted(_ENTRIES)


def _find(name: str) -> _Entry:
    if name not in _ENTRIES:
        raise ValueError(f"name: got {name!r}, expected one of {', '.join(names())}")
    return _ENTRIES[name]


def create(name: str, **arguments: Any) -> Module:
    """The network of that name, as `create("lenet5", num_classes=10)`. ValueError, listing the names, for another."""
    return _find(name).maker(**arguments)


def input_shape(name: str) -> tuple[int, int, int]:
    """(channels, height, width) of the images that the network of that name was made for."""
    return _find(name).input_shape


__all__ = [
    "VGG",
    "CifarResNet",
    "DigitsCNN",
    "LeNet5",
    "MobileNetV2",
    "ResNet",
    "UNet",
    "create",
    "digits_cnn",
    "input_shape",
    "lenet5",
    "mobilenet_v2",
    "names",
    "resnet18",
    "resnet20_cifar",
    "resnet34",
    "resnet50",
    "unet",
    "vgg11_bn",
]
