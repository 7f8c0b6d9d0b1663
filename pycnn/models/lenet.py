"""LeNet-5."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn.nn import Conv2d, Linear, Module


class LeNet5(Module):
    """LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86, 1998, in today's form.

    Two convolutions with pooling, three linear layers. In place of the original's scaled tanh, trained subsampling,
    partly connected second convolution and radial output: ReLU, max pooling, full connections and logits. It has 61,706
    parameters for ten classes of grey images.

    Args:
        num_classes: size of the output.
        in_channels: of the images, which are 28 x 28; the first convolution pads them to the original's 32 x 32.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, 6, 5, padding=2)
        self.conv2 = Conv2d(6, 16, 5)
        self.fc1 = Linear(16 * 5 * 5, 120)
        self.fc2 = Linear(120, 84)
        self.fc3 = Linear(84, num_classes)

    def forward(self, x: Any) -> Any:
        """x (n, in_channels, 28, 28) -> logits (n, num_classes)."""
        if x.ndim != 4 or x.shape[2:] != (28, 28):
            raise ValueError(f"x: got shape {x.shape}, expected (n, {self.conv1.in_channels}, 28, 28)")
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # 6 x 14 x 14
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # 16 x 5 x 5
        x = F.relu(self.fc1(F.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


def lenet5(num_classes: int = 10, in_channels: int = 1) -> LeNet5:
    """LeNet-5 for images of 28 x 28."""
    return LeNet5(num_classes, in_channels)
