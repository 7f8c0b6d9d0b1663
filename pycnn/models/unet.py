"""U-Net: an image in, a map of classes out."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn._arguments import integer
from pycnn.nn import BatchNorm2d, Conv2d, ConvTranspose2d, MaxPool2d, Module, ReLU, Sequential

_SMALLEST = 16  # pixels a side: four poolings leave one


class _Block(Module):
    """Twice: convolution of 3 x 3, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.double_conv = Sequential(
            Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            BatchNorm2d(out_channels),
            ReLU(inplace=True),
            Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            BatchNorm2d(out_channels),
            ReLU(inplace=True),
        )

    def forward(self, x: Any) -> Any:
        return self.double_conv(x)


class _Down(Module):
    """Half the size, then a block."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.maxpool_conv = Sequential(MaxPool2d(2), _Block(in_channels, out_channels))

    def forward(self, x: Any) -> Any:
        return self.maxpool_conv(x)


class _Up(Module):
    """Twice the size by a transposed convolution, the encoder's channels of that size beside it, then a block."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv = _Block(2 * out_channels, out_channels)

    def forward(self, x: Any, skip: Any) -> Any:
        x = self.up(x)
        # Pooling dropped the last row or column of an odd size.
        x = F.pad(x, (0, skip.shape[3] - x.shape[3], 0, skip.shape[2] - x.shape[2]))
        return self.conv(F.concat([skip, x], 1))


class _Head(Module):
    """A 1 x 1 convolution: at each pixel a logit for each class."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Any) -> Any:
        return self.conv(x)


class UNet(Module):
    """Ronneberger et al., "U-Net: Convolutional networks for biomedical image segmentation", 2015, in today's form.

    Unlike the paper's, convolutions keep the size, and are followed by batch normalization. Parameters have the names
    of the widely used milesial/Pytorch-UNet (with transposed convolutions), whose weights fit.

    Args:
        num_classes: channels of the output.
        in_channels: of the images, 16 x 16 or larger.
        base_width: channels at full size; each of four poolings doubles them.
    """

    def __init__(self, num_classes: int = 2, in_channels: int = 3, base_width: int = 64) -> None:
        super().__init__()
        width = integer(base_width, "base_width", 1)
        self.inc = _Block(in_channels, width)
        self.down1 = _Down(width, 2 * width)
        self.down2 = _Down(2 * width, 4 * width)
        self.down3 = _Down(4 * width, 8 * width)
        self.down4 = _Down(8 * width, 16 * width)
        self.up1 = _Up(16 * width, 8 * width)
        self.up2 = _Up(8 * width, 4 * width)
        self.up3 = _Up(4 * width, 2 * width)
        self.up4 = _Up(2 * width, width)
        self.outc = _Head(width, num_classes)

    def forward(self, x: Any) -> Any:
        """x (n, in_channels, h, w) -> logits (n, num_classes, h, w)."""
        if x.ndim != 4 or min(x.shape[2:]) < _SMALLEST:
            raise ValueError(f"x: got shape {x.shape}, expected (n, c, h, w) with h and w from {_SMALLEST} up")
        skips = [self.inc(x)]
        for down in (self.down1, self.down2, self.down3, self.down4):
            skips.append(down(skips[-1]))
        x = skips.pop()
        for up in (self.up1, self.up2, self.up3, self.up4):
            x = up(x, skips.pop())
        return self.outc(x)


def unet(num_classes: int = 2, in_channels: int = 3, base_width: int = 64) -> UNet:
    """U-Net: 31,037,698 parameters for two classes of coloured images."""
    return UNet(num_classes, in_channels, base_width)
