"""ResNet-20 for small images."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, Module, Sequential, init


class BasicBlock(Module):
    """Two convolutions of 3 x 3 beside a shortcut without parameters.

    Where a stage begins, the shortcut takes every second pixel and puts channels of zeros at both ends of its own:
    option A of the paper, in the arrangement of the implementation whose names the parameters have.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.stride = stride
        self.padding = (channels - in_channels) // 2

    def forward(self, x: Any) -> Any:
        shortcut = x
        if self.stride != 1:
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(Module):
    """He et al., "Deep residual learning for image recognition", 2015, section 4.2.

    Three stages of 16, 32 and 64 channels. Parameters have the names of the widely used
    akamaster/pytorch_resnet_cifar10, whose weights fit.

    Args:
        depth: blocks in each stage; the network has 6 depth + 2 layers.
        num_classes: size of the output.
        in_channels: of the images, which may have any size; 32 x 32 is usual.
    """

    def __init__(self, depth: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(16)
        self.layer1 = _stage(16, 16, depth, stride=1)
        self.layer2 = _stage(16, 32, depth, stride=2)
        self.layer3 = _stage(32, 64, depth, stride=2)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.linear = Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, (Conv2d, Linear)):
                init.kaiming_normal_(module.weight)

    def forward(self, x: Any) -> Any:
        """x (n, in_channels, h, w) -> logits (n, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.flatten(self.avgpool(x), 1))


def _stage(in_channels: int, channels: int, depth: int, stride: int) -> Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(depth - 1)))


def resnet20_cifar(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-20 for CIFAR-10: 269,722 parameters for ten classes."""
    return CifarResNet(3, num_classes, in_channels)
