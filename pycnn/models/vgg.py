"""VGG-11 with batch normalization, as torchvision has it."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    init,
)

_POOL = 0  # in a list of channels: halve the image
_VGG11 = (64, _POOL, 128, _POOL, 256, 256, _POOL, 512, 512, _POOL, 512, 512, _POOL)
_GRID = 7  # the classifier sees that many cells a side: 224 / 32


class VGG(Module):
    """Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014.

    Batch normalization after each convolution (Ioffe and Szegedy, 2015) is not in the paper. Names of parameters and
    initial values are torchvision's.

    Args:
        channels: of the convolutions of 3 x 3 in their order, with 0 for a pooling.
        num_classes: size of the output.
        in_channels: of the images: 32 x 32 or larger, usually 224 x 224.
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        with init.skipped():  # all are drawn below
            features: list[Module] = []
            for count in channels:
                if count == _POOL:
                    features.append(MaxPool2d(2))
                else:
                    features += [Conv2d(in_channels, count, 3, padding=1), BatchNorm2d(count), ReLU(inplace=True)]
                    in_channels = count
            self.features = Sequential(*features)
            self.avgpool = AdaptiveAvgPool2d(_GRID)
            self.classifier = Sequential(
                Linear(in_channels * _GRID * _GRID, 4096),
                ReLU(inplace=True),
                Dropout(0.5),
                Linear(4096, 4096),
                ReLU(inplace=True),
                Dropout(0.5),
                Linear(4096, num_classes),
            )
        for module in self.modules():
            if isinstance(module, Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                init.zeros_(module.bias)
            elif isinstance(module, Linear):
                init.normal_(module.weight, 0.0, 0.01)
                init.zeros_(module.bias)

    def forward(self, x: Any) -> Any:
        """x (n, in_channels, h, w) -> logits (n, num_classes)."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


def vgg11_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """VGG-11 (configuration A) with batch normalization: 132,868,840 parameters for 1,000 classes."""
    return VGG(_VGG11, num_classes, in_channels)
