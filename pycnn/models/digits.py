"""A small modern network, the default of `pycnn train`."""

from __future__ import annotations

from typing import Any

from pycnn.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)

_GRID = 7  # the classifier sees that many cells a side: 28 / 4


def _block(in_channels: int, out_channels: int, kernel_size: int) -> list[Module]:
    # No bias: batch normalization has one.
    conv = Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    return [conv, BatchNorm2d(out_channels), ReLU()]


class DigitsCNN(Module):
    """Four blocks of convolution, batch normalization and ReLU, with two poolings, and a linear classifier.

    Meant for digits of 28 x 28; other sizes from 4 x 4 on are brought to the classifier's grid by average pooling.

    Args:
        num_classes: size of the output.
        in_channels: of the images.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.features = Sequential(
            *_block(in_channels, 32, 5),
            MaxPool2d(2),
            *_block(32, 32, 3),
            *_block(32, 64, 3),
            MaxPool2d(2),
            *_block(64, 64, 3),
        )
        self.avgpool = AdaptiveAvgPool2d(_GRID)
        self.classifier = Sequential(Flatten(), Dropout(0.3), Linear(64 * _GRID * _GRID, num_classes))

    def forward(self, x: Any) -> Any:
        """x (n, in_channels, h, w) -> logits (n, num_classes)."""
        x = self.features(x)
        if x.shape[2:] != (_GRID, _GRID):
            x = self.avgpool(x)
        return self.classifier(x)


def digits_cnn(num_classes: int = 10, in_channels: int = 1) -> DigitsCNN:
    """The default network of `pycnn train`."""
    return DigitsCNN(num_classes, in_channels)
