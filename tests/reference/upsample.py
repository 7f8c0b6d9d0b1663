"""Upsampling: nearest and bilinear.

Both work on rows and columns separately: the output is  y = A x B^T  for each channel, where row i of A (oh,
ih) says from which input rows output row i is mixed, and B does so for columns. The gradient is the
transpose,  dx = A^T dy B.

`size` is (oh, ow). `scale` is (vertical, horizontal), how many times larger the output is; it defaults to the
ratio of the sizes, from which it differs when a scale factor did not give a whole number of pixels. An axis whose
size does not change is copied, whatever the scale, as in PyTorch.
"""

import numpy as np


def _source_step(length, out, scale):
    if length == out:
        return 1.0
    return length / out if scale is None else 1 / scale


def _nearest_matrix(length, out, scale, dtype):
    """Output pixel i copies input pixel floor(i * step), computed in float32: so does PyTorch, for any dtype."""
    step = np.float32(_source_step(length, out, scale))
    source = np.floor(np.arange(out, dtype=np.float32) * step).astype(int)
    matrix = np.zeros((out, length), dtype)
    matrix[np.arange(out), np.minimum(source, length - 1)] = 1
    return matrix


def _linear_matrix(length, out, scale, align_corners, dtype):
    """Output pixel i mixes the two input pixels next to its position.

    align_corners: the centres of the corner pixels coincide. Otherwise pixels are unit squares, their centres
    lie at i + 1/2, and the outer edges of the images coincide; positions outside the centres are clamped.
    """
    i = np.arange(out)
    if align_corners:
        position = i * ((length - 1) / (out - 1) if out > 1 else 0.0)
    else:
        position = np.maximum((i + 0.5) * _source_step(length, out, scale) - 0.5, 0)
    lower = np.minimum(np.floor(position).astype(int), length - 1)
    upper = np.minimum(lower + 1, length - 1)
    fraction = position - lower
    matrix = np.zeros((out, length), dtype)
    matrix[i, lower] += 1 - fraction
    matrix[i, upper] += fraction  # the same element as above at the lower right border
    return matrix


def nearest_forward(x, size, scale=(None, None)):
    a, b = (_nearest_matrix(x.shape[2 + k], size[k], scale[k], x.dtype) for k in (0, 1))
    return a @ x @ b.T


def nearest_backward(dy, x, scale=(None, None)):
    a, b = (_nearest_matrix(x.shape[2 + k], dy.shape[2 + k], scale[k], x.dtype) for k in (0, 1))
    return a.T @ dy @ b


def bilinear_forward(x, size, align_corners=False, scale=(None, None)):
    a, b = (_linear_matrix(x.shape[2 + k], size[k], scale[k], align_corners, x.dtype) for k in (0, 1))
    return a @ x @ b.T


def bilinear_backward(dy, x, align_corners=False, scale=(None, None)):
    a, b = (_linear_matrix(x.shape[2 + k], dy.shape[2 + k], scale[k], align_corners, x.dtype) for k in (0, 1))
    return a.T @ dy @ b
