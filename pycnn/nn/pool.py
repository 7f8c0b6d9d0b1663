"""Pooling and resizing layers: x (n, c, h, w) -> (n, c, oh, ow)."""

from __future__ import annotations

from typing import Any

from pycnn import functional as F
from pycnn._arguments import choice, integer, pair
from pycnn.nn.module import Module


def _pool_padding(padding: Any, kernel_size: tuple[int, int]) -> tuple[int, int]:
    rows, columns = pair(padding, "padding", 0)
    if 2 * rows > kernel_size[0] or 2 * columns > kernel_size[1]:
        raise ValueError(f"padding: got {(rows, columns)}, expected at most half of kernel_size {kernel_size}")
    return rows, columns


class MaxPool2d(Module):
    """The largest value of each window, as `torch.nn.MaxPool2d`; the first of equals gets the gradient, NaN wins.

    oh = (h + 2 padding - dilation (kh - 1) - 1) / stride + 1, rounded down, or up with ceil_mode."""

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.kernel_size = pair(kernel_size, "kernel_size", 1)
        self.stride = self.kernel_size if stride is None else pair(stride, "stride", 1)
        self.padding = _pool_padding(padding, self.kernel_size)
        self.dilation = pair(dilation, "dilation", 1)
        self.ceil_mode = bool(ceil_mode)

    def forward(self, x: Any) -> Any:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """The mean of each window, as `torch.nn.AvgPool2d`.

    count_include_pad: padding counts as zeros. divisor_override: divide by this instead of the window's size."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = pair(kernel_size, "kernel_size", 1)
        self.stride = self.kernel_size if stride is None else pair(stride, "stride", 1)
        self.padding = _pool_padding(padding, self.kernel_size)
        self.ceil_mode = bool(ceil_mode)
        self.count_include_pad = bool(count_include_pad)
        self.divisor_override = None if divisor_override is None else integer(divisor_override, "divisor_override", 1)

    def forward(self, x: Any) -> Any:
        return F.avg_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Means over windows that divide the image into output_size, as `torch.nn.AdaptiveAvgPool2d`.

    output_size: an int, or (rows, columns); None keeps a side. 1 is global average pooling."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        if isinstance(output_size, (tuple, list)):
            if len(output_size) != 2:
                raise ValueError(f"output_size: got {len(output_size)} values, expected an int or (rows, columns)")
            rows, columns = output_size
        else:
            rows = columns = output_size
        self.output_size = tuple(None if s is None else integer(s, "output_size", 1) for s in (rows, columns))

    def forward(self, x: Any) -> Any:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class Upsample(Module):
    """Resizes images, as `torch.nn.Upsample`: to `size`, or by `scale_factor`; mode 'nearest' or 'bilinear'."""

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
    ) -> None:
        super().__init__()
        if (size is None) == (scale_factor is None):
            raise ValueError("size, scale_factor: got both or none, expected one of them")
        if size is not None:
            pair(size, "size", 1)
        else:
            F.scale_factors(scale_factor)
        self.size = size
        self.scale_factor = scale_factor
        self.mode = choice(mode, "mode", ("nearest", "bilinear"))
        self.align_corners = align_corners

    def forward(self, x: Any) -> Any:
        return F.interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        what = f"scale_factor={self.scale_factor}" if self.size is None else f"size={self.size}"
        return f"{what}, mode={self.mode!r}"
