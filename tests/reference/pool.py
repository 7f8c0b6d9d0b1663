"""Max, average, adaptive average and global average pooling.

A window slides over each channel of the image and leaves one number. As in `conv`, the loop is over the taps
of the window: fix a tap, and the pixels that it sees form one strided slice of the padded image.

`kernel`, `stride`, `padding` and `dilation` are (vertical, horizontal); padding is the same on opposite
sides. ceil_mode rounds the output size up, so that the last window may hang over the edge, as long as it
starts inside the image or its leading padding.
"""

import numpy as np


def output_size(size, kernel, stride, padding, dilation=(1, 1), ceil_mode=False):
    """(oh, ow) of a pooling over an image of `size` (ih, iw)."""
    return tuple(
        _output_length(i, k, s, p, d, ceil_mode)
        for i, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )


def _output_length(i, k, s, p, d, ceil_mode):
    room = i + 2 * p - d * (k - 1) - 1
    if not ceil_mode:
        return room // s + 1
    o = -(-room // s) + 1
    return o - 1 if (o - 1) * s >= i + p else o


def _taps(kernel, out, stride, dilation):
    """For each tap of the window, the index of the padded pixels that it sees, one for each output pixel."""
    for tap in np.ndindex(*kernel):
        rows, cols = (
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, o, s, d in zip(tap, out, stride, dilation, strict=True)
        )
        yield ..., rows, cols


def _pad(x, kernel, out, stride, padding, dilation, fill):
    """x within `padding`, and as much again below and right as the last window needs."""
    widths = [(0, 0), (0, 0)]
    for i, k, o, s, p, d in zip(x.shape[2:], kernel, out, stride, padding, dilation, strict=True):
        end_of_last_window = (o - 1) * s + d * (k - 1) + 1
        widths.append((p, max(p, end_of_last_window - p - i)))
    return np.pad(x, widths, constant_values=fill)


def _unpad(padded, size, padding):
    return padded[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]


def _max_winners(x, kernel, stride, padding, dilation, ceil_mode):
    """Returns y, and for each tap of the window a mask of the outputs that it won: the first maximum in row
    order.

    Padding never wins. NaN beats every number, so it reaches the output.
    """
    out = output_size(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    geometry = kernel, out, stride, padding, dilation
    padded = _pad(x, *geometry, fill=-np.inf)
    inside = _pad(np.ones_like(x, dtype=bool), *geometry, fill=False)
    taps = list(_taps(kernel, out, stride, dilation))

    values = np.stack([padded[tap] for tap in taps])
    y = values.max(axis=0)
    candidates = np.stack([inside[tap] for tap in taps]) & ((values == y) | np.isnan(values))
    winner = candidates.argmax(axis=0)
    return y, [candidates[k] & (winner == k) for k in range(len(taps))]


def max_pool2d_forward(x, kernel, stride, padding=(0, 0), dilation=(1, 1), ceil_mode=False):
    y, _ = _max_winners(x, kernel, stride, padding, dilation, ceil_mode)
    return y


def max_pool2d_backward(dy, x, kernel, stride, padding=(0, 0), dilation=(1, 1), ceil_mode=False):
    """Each output passes its gradient to the one pixel that won its window."""
    _, wins = _max_winners(x, kernel, stride, padding, dilation, ceil_mode)
    out = dy.shape[2:]
    dpadded = _pad(np.zeros_like(x), kernel, out, stride, padding, dilation, fill=0)
    for tap, won in zip(_taps(kernel, out, stride, dilation), wins, strict=True):
        dpadded[tap] += np.where(won, dy, 0)
    return _unpad(dpadded, x.shape[2:], padding)


def _avg_divisor(size, kernel, out, stride, padding, count_include_pad, divisor_override):
    """(oh, ow): what the sum of each window is divided by.

    The padding counts only if asked. What ceil_mode lets hang over beyond the padding never does.
    """
    if divisor_override is not None:
        return np.full(out, divisor_override)
    counts = []
    for i, k, o, s, p in zip(size, kernel, out, stride, padding, strict=True):
        start = np.arange(o) * s - p
        end = np.minimum(start + k, i + p)
        counts.append(end - start if count_include_pad else np.minimum(end, i) - np.maximum(start, 0))
    return np.outer(*counts)


def avg_pool2d_forward(
    x, kernel, stride, padding=(0, 0), ceil_mode=False, count_include_pad=True, divisor_override=None
):
    size, dense = x.shape[2:], (1, 1)
    out = output_size(size, kernel, stride, padding, dense, ceil_mode)
    padded = _pad(x, kernel, out, stride, padding, dense, fill=0)
    divisor = _avg_divisor(size, kernel, out, stride, padding, count_include_pad, divisor_override)
    return sum(padded[tap] for tap in _taps(kernel, out, stride, dense)) / divisor.astype(x.dtype)


def avg_pool2d_backward(
    dy, x, kernel, stride, padding=(0, 0), ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """Each output shares its gradient equally among the pixels of its window."""
    size, out, dense = x.shape[2:], dy.shape[2:], (1, 1)
    divisor = _avg_divisor(size, kernel, out, stride, padding, count_include_pad, divisor_override)
    dpadded = _pad(np.zeros_like(x), kernel, out, stride, padding, dense, fill=0)
    for tap in _taps(kernel, out, stride, dense):
        dpadded[tap] += dy / divisor.astype(dy.dtype)
    return _unpad(dpadded, size, padding)


def _bins(length, count):
    """Cuts 0..length into `count` bins of as equal size as can be. They overlap where they must to cover
    everything.
    """
    return [slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def adaptive_avg_pool2d_forward(x, size):
    """The mean of each of `size` (oh, ow) bins."""
    y = np.zeros((*x.shape[:2], *size), x.dtype)
    for i, rows in enumerate(_bins(x.shape[2], size[0])):
        for j, cols in enumerate(_bins(x.shape[3], size[1])):
            y[:, :, i, j] = x[:, :, rows, cols].mean(axis=(2, 3))
    return y


def adaptive_avg_pool2d_backward(dy, x):
    dx = np.zeros_like(x)
    for i, rows in enumerate(_bins(x.shape[2], dy.shape[2])):
        for j, cols in enumerate(_bins(x.shape[3], dy.shape[3])):
            pixels = (rows.stop - rows.start) * (cols.stop - cols.start)
            dx[:, :, rows, cols] += dy[:, :, i, j, None, None] / pixels
    return dx


def global_avg_pool2d_forward(x):
    """(n, c, h, w) -> (n, c, 1, 1)."""
    return x.mean(axis=(2, 3), keepdims=True)


def global_avg_pool2d_backward(dy, x):
    return np.broadcast_to(dy / (x.shape[2] * x.shape[3]), x.shape)
