"""ONNX operators that slide windows over images or resize them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn.onnx.model_file import Node
from pycnn.parameter import Array, Parameter
from pycnn.tracing import Tensor

Sides = tuple[int, int, int, int]  # top, left, bottom, right


def _image(x: Any, name: str = "X") -> Tensor:
    if not isinstance(x, Tensor) or x.ndim != 4:
        got = f"shape {x.shape}" if isinstance(x, Tensor) else "a constant"
        raise ValueError(f"{name}: got {got}, expected images (n, c, h, w)")
    return x


def _two(node: Node, name: str, default: int) -> tuple[int, int]:
    rows, columns = node.attributes.get(name, (default, default))
    return rows, columns


def _padding(node: Node, x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Sides:
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        top, left, bottom, right = node.attributes.get("pads", (0, 0, 0, 0))
        return top, left, bottom, right
    if mode == "VALID":
        return 0, 0, 0, 0
    begin, end = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        total = max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        less, more = total // 2, total - total // 2
        begin.append(more if mode == "SAME_LOWER" else less)
        end.append(less if mode == "SAME_LOWER" else more)
    return begin[0], begin[1], end[0], end[1]


def _conv(node: Node, x: Any, weight: Any, bias: Any = None) -> Tensor:
    _image(x)
    _check_weight(weight)
    kernel, stride, dilation = weight.shape[2:], _two(node, "strides", 1), _two(node, "dilations", 1)
    padding = _padding(node, x, kernel, stride, dilation)
    return F.conv2d(x, weight, bias, stride, padding, dilation, node.attributes.get("group", 1))


def _check_weight(weight: Any) -> None:
    if not isinstance(weight, (Parameter, np.ndarray)) or weight.ndim != 4:
        got = "a computed tensor" if isinstance(weight, Tensor) else f"shape {weight.shape}"
        raise ValueError(f"W: got {got}, expected constant weights of 4 dimensions")


def _conv_transpose(node: Node, x: Any, weight: Any, bias: Any = None) -> Tensor:
    _image(x)
    _check_weight(weight)
    stride, dilation, extra = _two(node, "strides", 1), _two(node, "dilations", 1), _two(node, "output_padding", 0)
    mode = node.attributes.get("auto_pad", "NOTSET")
    wanted = node.attributes.get("output_shape")
    if wanted is None and mode.startswith("SAME"):
        wanted = [size * s for size, s in zip(x.shape[2:], stride, strict=True)]
    if wanted is None:
        padding = _padding(node, x, weight.shape[2:], stride, dilation)
    else:
        begin, end = [], []
        more_at_end = mode == "SAME_UPPER"
        sides = zip(x.shape[2:], wanted[-2:], weight.shape[2:], stride, dilation, extra, strict=True)
        for size, out, k, s, d, e in sides:
            total = s * (size - 1) + e + d * (k - 1) + 1 - out
            less, more = total // 2, total - total // 2
            begin.append(less if more_at_end else more)
            end.append(more if more_at_end else less)
        padding = begin[0], begin[1], end[0], end[1]
    group = node.attributes.get("group", 1)
    if min(padding) >= 0:
        return F.conv_transpose2d(x, weight, bias, stride, padding, extra, group, dilation)
    # Less than no padding: what the windows do not reach is zero, but for the bias.
    if bias is not None:
        raise ValueError(f"output_shape: got {wanted} with a bias, expected at most what the windows reach")
    y = F.conv_transpose2d(x, weight, None, stride, 0, extra, group, dilation)
    top, left, bottom, right = padding
    return F.pad(y, (-left, -right, -top, -bottom))


# ---- pooling ---------------------------------------------------------------------------------------------------------


def _fits(padding: Sides, kernel: Sequence[int]) -> bool:
    """Whether the engine's pooling takes this padding: alike at both ends, at most half a window."""
    top, left, bottom, right = padding
    return (top, left) == (bottom, right) and 2 * top <= kernel[0] and 2 * left <= kernel[1]


def _padded(x: Tensor, padding: Sides, value: float) -> Tensor:
    top, left, bottom, right = padding
    return F.pad(x, (left, right, top, bottom), value=value)


def _max_pool(node: Node, x: Any) -> Tensor:
    _image(x)
    if len(node.results) > 1 and node.results[1]:
        raise ValueError("Indices: they are wanted as a result, expected only Y")
    kernel, stride, dilation = _two(node, "kernel_shape", 1), _two(node, "strides", 1), _two(node, "dilations", 1)
    padding = _padding(node, x, kernel, stride, dilation)
    ceil_mode = bool(node.attributes.get("ceil_mode", 0))
    if _fits(padding, kernel):
        return F.max_pool2d(x, kernel, stride, padding[:2], dilation, ceil_mode)
    return F.max_pool2d(_padded(x, padding, -math.inf), kernel, stride, 0, dilation, ceil_mode)


def _avg_pool(node: Node, x: Any) -> Tensor:
    _image(x)
    kernel, stride = _two(node, "kernel_shape", 1), _two(node, "strides", 1)
    if _two(node, "dilations", 1) != (1, 1):
        raise ValueError(f"dilations: got {node.attributes['dilations']}, expected 1")
    padding = _padding(node, x, kernel, stride, (1, 1))
    ceil_mode = bool(node.attributes.get("ceil_mode", 0))
    counts_padding = bool(node.attributes.get("count_include_pad", 0))
    if _fits(padding, kernel):
        return F.avg_pool2d(x, kernel, stride, padding[:2], ceil_mode, counts_padding)
    y = F.avg_pool2d(_padded(x, padding, 0.0), kernel, stride, 0, ceil_mode)
    if counts_padding:
        return y
    # Means over the padded windows, brought to the number of pixels that are in each.
    scales = []
    for k in range(2):
        first = np.arange(y.shape[2 + k]) * stride[k] - padding[k]
        size = x.shape[2 + k]
        last = first + kernel[k]
        inside = np.minimum(last, size) - np.maximum(first, 0)
        if inside.min(initial=1) < 1:
            raise ValueError(f"pads: got {list(padding)}, expected at least one pixel of the image in each window")
        scales.append((np.minimum(last, size + padding[2 + k]) - first) / inside)
    return y * np.outer(*scales)


def _global_max_pool(node: Node, x: Any) -> Tensor:
    return F.max_pool2d(_image(x), x.shape[2:])


def _global_average_pool(node: Node, x: Any) -> Tensor:
    return F.adaptive_avg_pool2d(_image(x), 1)


# ---- resizing --------------------------------------------------------------------------------------------------------


def _positions(mode: str, size: int, out: int, scale: float) -> Array:
    """Where on the source axis each output pixel lies, as the operator's definition says."""
    i = np.arange(out, dtype=np.float64)
    step = size / out if _is_ratio(scale, size, out) else 1.0 / scale
    halves = (2 * i + 1) * size / (2 * out) if _is_ratio(scale, size, out) else (i + 0.5) / scale
    if mode == "asymmetric":
        return i * size / out if _is_ratio(scale, size, out) else i * step
    if mode == "align_corners":
        last = size * scale - 1
        return i * ((size - 1) / last) if last > 0 else np.zeros(out)
    if mode == "tf_half_pixel_for_nn":
        return halves
    if mode == "half_pixel_symmetric":
        return size / 2 * (1 - out / (scale * size)) + halves - 0.5
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and out > 1):
        return halves - 0.5
    if mode == "pytorch_half_pixel":
        return np.zeros(out)
    raise ValueError(f"coordinate_transformation_mode: got {mode!r}, expected one that maps whole images")


def _is_ratio(scale: float, size: int, out: int) -> bool:
    """Whether the scale is the ratio of the sizes, but for its rounding to float32."""
    return abs(scale * size - out) <= 1e-6 * out


_ROUNDING: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda p: np.ceil(p - 0.5),
    "round_prefer_ceil": lambda p: np.floor(p + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _resize(node: Node, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    _image(x)
    attributes = node.attributes
    named = [axis % 4 for axis in attributes.get("axes", range(4))]
    factors, wanted = [1.0] * 4, list(x.shape)
    if sizes is not None and np.size(sizes):
        if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise ValueError(f"keep_aspect_ratio_policy: got {attributes['keep_aspect_ratio_policy']!r}")
        for axis, size in zip(named, np.ravel(sizes), strict=True):
            wanted[axis] = int(size)
            factors[axis] = wanted[axis] / x.shape[axis] if x.shape[axis] else 1.0
    elif scales is not None and np.size(scales):
        for axis, factor in zip(named, np.ravel(scales), strict=True):
            factors[axis] = float(factor)
            wanted[axis] = math.floor(x.shape[axis] * factors[axis])
    else:
        raise ValueError("scales, sizes: got neither, expected one of them")
    if wanted[:2] != list(x.shape[:2]):
        raise ValueError(f"scales, sizes: got {factors[:2]} for batch and channels, expected 1")
    how = "asymmetric" if node.opset < 11 else attributes.get("coordinate_transformation_mode", "half_pixel")
    return _resized(x, attributes.get("mode", "nearest"), how, wanted[2:], factors[2:], attributes)


def _resized(x: Tensor, mode: str, how: str, sizes: list[int], factors: list[float], attributes: Any) -> Tensor:
    """F.interpolate, if it takes its pixels from the same places as the operator."""
    if sizes == list(x.shape[2:]) and factors == [1.0, 1.0]:
        return x
    sides = list(zip(x.shape[2:], sizes, factors, strict=True))
    places = [_positions(how, *side) for side in sides]
    if mode not in ("nearest", "linear") or attributes.get("antialias", 0):
        blurred = " with antialias" if attributes.get("antialias", 0) else ""
        raise ValueError(f"mode: got {mode!r}{blurred}, expected 'nearest' or 'linear'")
    rule = "asymmetric" if mode == "nearest" else "align_corners" if how == "align_corners" else "half_pixel"
    rounding = _ROUNDING[attributes.get("nearest_mode", "round_prefer_floor")]
    for (size, out, factor), place in zip(sides, places, strict=True):
        own = _positions(rule, size, out, out / size if rule == "align_corners" else factor)
        got, want = (rounding(place), np.floor(own)) if mode == "nearest" else (place, own)
        if not np.allclose(np.clip(got, 0, size - 1), np.clip(want, 0, size - 1), atol=1e-4):
            rounded = f" and {attributes.get('nearest_mode', 'round_prefer_floor')!r}" if mode == "nearest" else ""
            raise ValueError(
                f"coordinate_transformation_mode: got {how!r}{rounded} with mode {mode!r} for {size} to {out} "
                "pixels, expected places as of mode 'nearest' with 'asymmetric' and 'floor', or of mode 'linear' with "
                "'half_pixel' or 'align_corners'"
            )
    if rule == "align_corners":
        return F.interpolate(x, sizes, mode="bilinear", align_corners=True)
    kind = "nearest" if mode == "nearest" else "bilinear"
    if all(_is_ratio(factor, size, out) for size, out, factor in sides):
        return F.interpolate(x, sizes, mode=kind)
    return F.interpolate(x, scale_factor=factors, mode=kind)


def _upsample(node: Node, x: Any, scales: Any = None) -> Tensor:
    _image(x)
    given = node.attributes.get("scales") if scales is None else scales
    if given is None:
        raise ValueError("scales: got a computed tensor, expected constants")
    factors = [float(factor) for factor in np.ravel(given)]
    sizes = [math.floor(size * factor) for size, factor in zip(x.shape, factors, strict=True)]
    if sizes[:2] != list(x.shape[:2]):
        raise ValueError(f"scales: got {factors[:2]} for batch and channels, expected 1")
    mode = node.attributes.get("mode", "nearest")
    return _resized(x, mode, "asymmetric", sizes[2:], factors[2:], {"nearest_mode": "floor"})


def _pad(node: Node, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    mode = node.attributes.get("mode", "constant")
    sides = [int(p) for p in np.ravel(node.attributes["pads"] if pads is None else pads)]
    fill = node.attributes.get("value", 0.0) if value is None or np.size(value) == 0 else value
    if isinstance(fill, Tensor) or isinstance(pads, Tensor):
        raise ValueError("pads, constant_value: got computed tensors, expected constants")
    named = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in np.ravel(axes)]
    begin, end = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(named):
        begin[axis], end[axis] = sides[i], sides[len(named) + i]
    if mode not in _PAD_MODES:
        raise ValueError(f"mode: got {mode!r}, expected one of {', '.join(_PAD_MODES)}")
    pad = [side for axis in reversed(range(x.ndim)) for side in (begin[axis], end[axis])]
    while len(pad) > 2 and pad[-2:] == [0, 0]:
        del pad[-2:]
    return F.pad(x, pad, _PAD_MODES[mode], float(np.reshape(fill, ())))


_PAD_MODES = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}

OPERATORS: dict[str, Callable[..., Any]] = {
    "AveragePool": _avg_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _upsample,
}
