"""Transforms of whole batches, applied by a DataLoader: ``transform(x, rng)``.

x: images (n, c, h, w), uint8 or float32, best channels-last in memory. The result is a new array with that
memory; x is left as it was. rng: the numpy.random.Generator that all randomness comes from; each image draws
its own. Any function of these two arguments serves as a transform.

Bad arguments raise TypeError (types, dtypes) or ValueError (values, shapes) that name them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from . import _check

Images = NDArray[Any]
Transform = Callable[[Images, "np.random.Generator"], Images]  # quoted: NumPy imports its random on first use


def _nhwc(x: Images) -> Images:
    """Images (n, c, h, w) as a view (n, h, w, c), the order of their memory."""
    return _check.images("x", x).transpose(0, 2, 3, 1)


def _nchw(x: Images) -> Images:
    return x.transpose(0, 3, 1, 2)


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Transform]):
        for i, transform in enumerate(transforms):
            if not callable(transform):
                raise TypeError(
                    f"transforms[{i}]: got {type(transform).__name__}, wanted a function of (x, rng)"
                )
        self.transforms = tuple(transforms)

    def __call__(self, x: Images, rng: np.random.Generator) -> Images:
        for transform in self.transforms:
            x = transform(x, rng)
        return x


class Normalize:
    """(x - mean) / std in every channel, as float32. uint8 images are first taken from 0..255 to 0..1.

    mean, std: a number for all channels, or one a channel. The defaults only convert: this is the one place
    where bytes become floats.
    """

    def __init__(self, mean: ArrayLike = 0.0, std: ArrayLike = 1.0):
        self.mean = _per_channel("mean", mean)
        self.std = _per_channel("std", std)
        if not (self.std > 0).all():
            raise ValueError(f"std: got {std!r}, wanted numbers above 0")

    def __call__(self, x: Images, rng: np.random.Generator | None = None) -> Images:
        source = np.ascontiguousarray(_nhwc(x))
        n, h, w, c = source.shape
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value.size not in (1, c):
                raise ValueError(f"x: got {c} channels, wanted {value.size}: {name} has one number for each")
        full = 255.0 if x.dtype == np.uint8 else 1.0
        # By whole rows of the image: NumPy is slow where the inner loop is only c long.
        mean, std = (
            np.tile(np.broadcast_to(v * full, c), w).astype(np.float32) for v in (self.mean, self.std)
        )
        rows = np.subtract(source.reshape(n * h, w * c), mean, dtype=np.float32)
        rows /= std
        return _nchw(rows.reshape(n, h, w, c))


class RandomCrop:
    """A window of `size` at a random place, after `padding` pixels were added on every side.

    size: height and width, one int for a square.
    padding_mode: "constant" adds pixels of value `fill`; "reflect" mirrors the image about its edge pixels.
    """

    def __init__(
        self, size: int | tuple[int, int], padding: int = 0, padding_mode: str = "constant", fill: float = 0
    ):
        self.size = _check.height_width("size", size)
        self.padding = _check.integer("padding", padding, 0)
        if padding_mode not in ("constant", "reflect"):
            raise ValueError(f"padding_mode: got {padding_mode!r}, wanted 'constant' or 'reflect'")
        self.padding_mode = padding_mode
        self.fill = _fill(fill)

    def __call__(self, x: Images, rng: np.random.Generator) -> Images:
        source = _nhwc(x)
        (n, h, w, c), p, (oh, ow) = source.shape, self.padding, self.size
        if oh > h + 2 * p or ow > w + 2 * p:
            raise ValueError(
                f"x: got height and width {(h, w)}, with padding {(h + 2 * p, w + 2 * p)}; "
                f"wanted at least size {self.size}"
            )
        widths = ((0, 0), (p, p), (p, p), (0, 0))
        if self.padding_mode == "constant":
            padded = np.pad(source, widths, constant_values=_fill_for(x, self.fill))
        elif p < min(h, w):
            padded = np.pad(source, widths, mode="reflect")
        else:
            raise ValueError(f"x: got height and width {(h, w)}, wanted more than padding {p} to reflect")
        top = _check.generator(rng).integers(h + 2 * p - oh + 1, size=n)
        left = rng.integers(w + 2 * p - ow + 1, size=n)
        # Windows over rows of w * c values, so that each row of a crop is copied as one run.
        rows = np.ascontiguousarray(padded).reshape(n, h + 2 * p, (w + 2 * p) * c)
        windows = sliding_window_view(rows, (oh, ow * c), axis=(1, 2))
        return _nchw(windows[np.arange(n), top, left * c].reshape(n, oh, ow, c))


class RandomHorizontalFlip:
    """Each image mirrored left to right with probability `p`."""

    def __init__(self, p: float = 0.5):
        self.p = _check.real("p", p, 0, 1)

    def __call__(self, x: Images, rng: np.random.Generator) -> Images:
        out = _nhwc(x).copy(order="C")
        flipped = _check.generator(rng).random(len(out)) < self.p
        out[flipped] = out[flipped, :, ::-1]  # the right side is copied first
        return _nchw(out)


class Cutout:
    """A square of `size` x `size` pixels set to `fill`, centred anywhere in the image, cut at its borders.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    """

    def __init__(self, size: int, fill: float = 0):
        self.size = _check.integer("size", size, 1)
        self.fill = _fill(fill)

    def __call__(self, x: Images, rng: np.random.Generator) -> Images:
        out = _nhwc(x).copy(order="C")
        n, h, w, _ = out.shape

        def covered(length: int) -> NDArray[np.bool_]:
            start = _check.generator(rng).integers(length, size=(n, 1)) - self.size // 2
            position = np.arange(length)
            return (start <= position) & (position < start + self.size)

        out[covered(h)[:, :, None] & covered(w)[:, None, :]] = _fill_for(x, self.fill)
        return _nchw(out)


class RandomAffine:
    """Each image turned, shifted and scaled about its centre by random amounts, with bilinear interpolation.

    degrees: the turn, clockwise, from (low, high), or from (-degrees, degrees).
    translate: greatest shift to either side as fractions (of the width, of the height).
    scale: the factor, from (low, high).
    fill: the value beyond the image's border.
    """

    def __init__(
        self,
        degrees: float | tuple[float, float],
        translate: tuple[float, float] | None = None,
        scale: tuple[float, float] | None = None,
        fill: float = 0,
    ):
        if not isinstance(degrees, (tuple, list)):
            degrees = (-_check.real("degrees", degrees, 0, math.inf), degrees)
        self.degrees = _interval("degrees", degrees, -math.inf)
        shifts = (0, 0) if translate is None else _check.pair("translate", translate)
        self.translate = tuple(_check.real("translate", shift, 0, 1) for shift in shifts)
        self.scale = (1.0, 1.0) if scale is None else _interval("scale", scale, 0)
        if self.scale[0] == 0:
            raise ValueError(f"scale: got {scale!r}, wanted factors above 0")
        self.fill = _fill(fill)

    def __call__(self, x: Images, rng: np.random.Generator) -> Images:
        source = _nhwc(x)
        n, h, w, _ = source.shape
        angle = np.radians(_check.generator(rng).uniform(*self.degrees, n))
        scale = rng.uniform(*self.scale, n)
        dx = rng.uniform(-1, 1, n) * self.translate[0] * w
        dy = rng.uniform(-1, 1, n) * self.translate[1] * h
        # Where each pixel of the result comes from: shifted back, turned back, scaled back.
        cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
        column = np.arange(w) - (w - 1) / 2 - dx[:, None]
        row = np.arange(h) - (h - 1) / 2 - dy[:, None]
        sx = (cos[:, None] * column)[:, None, :] + (sin[:, None] * row)[:, :, None] + (w - 1) / 2
        sy = (cos[:, None] * row)[:, :, None] - (sin[:, None] * column)[:, None, :] + (h - 1) / 2
        return _nchw(_bilinear(source, sx, sy, _fill_for(x, self.fill)))


def _bilinear(source: Images, sx: NDArray[Any], sy: NDArray[Any], fill: Any) -> Images:
    """Images (n, h, w, c) sampled at columns sx and rows sy, both (n, oh, ow); `fill` beyond the border."""
    n, h, w, c = source.shape
    # With one pixel of fill around, every place outside is the same as a place on that frame.
    frame = ((0, 0), (1, 1), (1, 1), (0, 0))
    pixels = np.pad(source, frame, constant_values=fill).reshape(-1, c).astype(np.float32, copy=False)
    x0, fx = _cell(sx, w)
    y0, fy = _cell(sy, h)
    first = np.arange(n)[:, None, None] * (h + 2)
    corner = (first + y0) * (w + 2) + x0

    def along_row(at: NDArray[Any]) -> Images:
        left, right = pixels.take(at, axis=0), pixels.take(at + 1, axis=0)
        right -= left
        right *= fx
        right += left
        return right

    above, below = along_row(corner), along_row(corner + (w + 2))
    below -= above
    below *= fy
    below += above
    return np.rint(below).astype(np.uint8) if source.dtype == np.uint8 else below


def _cell(position: NDArray[Any], length: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The framed pixel before each position, and the rest: a weight in [0, 1] of shape (n, oh, ow, 1)."""
    position = np.clip(position + 1, 0, length + 1)
    before = np.minimum(position.astype(np.intp), length)
    return before, (position - before).astype(np.float32)[..., None]


def _per_channel(name: str, value: ArrayLike) -> NDArray[np.float64]:
    try:
        numbers = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {value!r}, wanted a number or one a channel") from None
    if numbers.ndim > 1 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"{name}: got {value!r}, wanted a finite number or one a channel")
    return numbers


def _interval(name: str, value: Any, minimum: float) -> tuple[float, float]:
    low, high = (_check.real(name, v, minimum, math.inf) for v in _check.pair(name, value))
    if low > high:
        raise ValueError(f"{name}: got {value!r}, wanted (low, high)")
    return low, high


def _fill(value: Any) -> float:
    return _check.real("fill", value, -math.inf, math.inf)


def _fill_for(x: Images, value: float) -> float | int:
    """`value` as one of x's dtype, where NumPy would wrap it round in silence."""
    if x.dtype != np.uint8:
        return value
    if not (0 <= value <= 255 and value == int(value)):
        raise ValueError(f"fill: got {value:g}, wanted an integer from 0 to 255 for uint8 images")
    return int(value)
