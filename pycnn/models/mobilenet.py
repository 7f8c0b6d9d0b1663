"""MobileNetV2, as torchvision has it."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn import BatchNorm2d, Conv2d, Dropout, Linear, Module, ReLU6, Sequential, init

# expansion, channels, blocks, stride of the first block: table 2 of the paper
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM, _LAST = 32, 1280


def _conv_bn_relu6(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> Sequential:
    padding = kernel_size // 2
    conv = Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, groups=groups, bias=False)
    return Sequential(conv, BatchNorm2d(out_channels), ReLU6(inplace=True))


class InvertedResidual(Module):
    """1 x 1 to more channels (unless expansion is 1), depthwise 3 x 3, 1 x 1 to few without activation.

    With a shortcut between the few where size and channels stay."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        expand = [] if expansion == 1 else [_conv_bn_relu6(in_channels, hidden, 1)]
        self.conv = Sequential(
            *expand,
            _conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden),
            Conv2d(hidden, out_channels, 1, bias=False),
            BatchNorm2d(out_channels),
        )
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Any) -> Any:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(Module):
    """Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", 2018.

    Names of parameters and initial values are torchvision's.

    Args:
        num_classes: size of the output.
        in_channels: of the images, which may have any size; 224 x 224 is usual.
    """

    def __init__(self, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        blocks: list[Module] = [_conv_bn_relu6(in_channels, _STEM, 3, stride=2)]
        width = _STEM
        for expansion, channels, count, first_stride in _STAGES:
            for number in range(count):
                blocks.append(InvertedResidual(width, channels, 1 if number else first_stride, expansion))
                width = channels
        self.features = Sequential(*blocks, _conv_bn_relu6(width, _LAST, 1))
        self.classifier = Sequential(Dropout(0.2), Linear(_LAST, num_classes))
        for module in self.modules():
            if isinstance(module, Conv2d):
                init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, Linear):
                init.normal_(module.weight, 0.0, 0.01)
                init.zeros_(module.bias)

    def forward(self, x: Any) -> Any:
        """x (n, in_channels, h, w) -> logits (n, num_classes)."""
        return self.classifier(F.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3) -> MobileNetV2:
    """MobileNetV2 of width 1: 3,504,872 parameters for 1,000 classes."""
    return MobileNetV2(num_classes, in_channels)
