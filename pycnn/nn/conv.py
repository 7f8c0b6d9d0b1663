"""Convolution layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn._arguments import choice, integer, pair, sides
from pycnn.nn import init
from pycnn.nn.module import Module
from pycnn.parameter import Parameter


def _default_init(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's: uniform in +-1/sqrt(fan_in), for weights and bias alike."""
    if init.is_skipped():
        return
    init.kaiming_uniform_(weight, a=math.sqrt(5.0))
    if bias is not None:
        fan_in = init.fans(weight)[0]
        bound = 1.0 / math.sqrt(fan_in) if fan_in > 0 else 0.0
        init.uniform_(bias, -bound, bound)


def _check_groups(in_channels: int, out_channels: int, groups: int) -> None:
    for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if channels % groups:
            raise ValueError(f"{name}: got {channels}, expected a multiple of groups {groups}")


class Conv2d(Module):
    """Two-dimensional cross-correlation, as `torch.nn.Conv2d`.

    x (n, in_channels, h, w) -> (n, out_channels, oh, ow),
    oh = (h + top + bottom - dilation (kh - 1) - 1) // stride + 1.
    N_in N_out K^2 / groups + N_out parameters and K^2 N_in N_out OH OW / groups multiply-accumulates an image.

    Args:
        in_channels, out_channels: multiples of groups.
        kernel_size, stride, dilation: an int, or (rows, columns).
        padding: zeros around the image: an int, (rows, columns), (top, left, bottom, right), 'valid' or 'same'.
        groups: in_channels makes it depthwise.
        bias: add a number per output channel.

    Attributes:
        weight: Parameter (out_channels, in_channels / groups, kh, kw). bias: Parameter (out_channels), or None.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range; the message names it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        self.in_channels = integer(in_channels, "in_channels", 1)
        self.out_channels = integer(out_channels, "out_channels", 1)
        self.kernel_size = pair(kernel_size, "kernel_size", 1)
        self.stride = pair(stride, "stride", 1)
        self.dilation = pair(dilation, "dilation", 1)
        self.groups = integer(groups, "groups", 1)
        F.resolve_padding(padding, self.kernel_size, self.stride, self.dilation)  # refuses what it cannot read
        self.padding = padding
        choice(padding_mode, "padding_mode", ("zeros",))
        _check_groups(self.in_channels, self.out_channels, self.groups)
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight = Parameter(np.zeros(shape, np.float32))
        self.register_parameter("bias", Parameter(np.zeros(self.out_channels, np.float32)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _default_init(self.weight, self.bias)

    def _weights(self) -> list[Parameter]:
        return [self.weight]

    def forward(self, x: Any) -> Any:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )


class ConvTranspose2d(Module):
    """Transposed convolution, the gradient of Conv2d by its source, as `torch.nn.ConvTranspose2d`.

    x (n, in_channels, h, w) -> (n, out_channels, oh, ow),
    oh = (h - 1) stride - top - bottom + dilation (kh - 1) + output_padding + 1.

    Args: as Conv2d; output_padding, smaller than stride or dilation, adds rows and columns at the bottom and right.

    Attributes:
        weight: Parameter (in_channels, out_channels / groups, kh, kw). bias: Parameter (out_channels), or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
    ) -> None:
        super().__init__()
        self.in_channels = integer(in_channels, "in_channels", 1)
        self.out_channels = integer(out_channels, "out_channels", 1)
        self.kernel_size = pair(kernel_size, "kernel_size", 1)
        self.stride = pair(stride, "stride", 1)
        sides(padding)
        self.padding = padding
        self.output_padding = pair(output_padding, "output_padding", 0)
        self.dilation = pair(dilation, "dilation", 1)
        for extra, step, spread in zip(self.output_padding, self.stride, self.dilation, strict=True):
            if extra >= max(step, spread):
                raise ValueError(
                    f"output_padding: got {output_padding}, expected less than stride {self.stride} or dilation "
                    f"{self.dilation}"
                )
        self.groups = integer(groups, "groups", 1)
        _check_groups(self.in_channels, self.out_channels, self.groups)
        shape = (self.in_channels, self.out_channels // self.groups, *self.kernel_size)
        self.weight = Parameter(np.zeros(shape, np.float32))
        self.register_parameter("bias", Parameter(np.zeros(self.out_channels, np.float32)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _default_init(self.weight, self.bias)

    def _weights(self) -> list[Parameter]:
        return [self.weight]

    def forward(self, x: Any) -> Any:
        return F.conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding!r}, output_padding={self.output_padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias is not None}"
        )


class Linear(Module):
    """x W^T + b over the last axis, as `torch.nn.Linear`: x (..., in_features) -> (..., out_features).

    Attributes:
        weight: Parameter (out_features, in_features). bias: Parameter (out_features), or None.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = integer(in_features, "in_features", 1)
        self.out_features = integer(out_features, "out_features", 1)
        self.weight = Parameter(np.zeros((self.out_features, self.in_features), np.float32))
        self.register_parameter("bias", Parameter(np.zeros(self.out_features, np.float32)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        _default_init(self.weight, self.bias)

    def _weights(self) -> list[Parameter]:
        return [self.weight]

    def forward(self, x: Any) -> Any:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"
