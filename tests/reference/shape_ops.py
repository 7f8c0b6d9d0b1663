"""Operations that join and rearrange: flatten, add, multiply, concatenate, slice.

These make a network a graph instead of a chain: a residual connection is an add, a gate is a multiply, a
U-Net's skip is a concatenation.
"""

import numpy as np


def flatten_forward(x, start_dim=1, end_dim=-1):
    """Axes start_dim..end_dim, both included, become one, in row-major order of the logical shape."""
    start, end = start_dim % x.ndim, end_dim % x.ndim
    merged = int(np.prod(x.shape[start : end + 1]))
    return x.reshape(*x.shape[:start], merged, *x.shape[end + 1 :])


def flatten_backward(dy, x):
    return dy.reshape(x.shape)


def _sum_to(gradient, shape):
    """The transpose of broadcasting: an element that was repeated gathers the gradients of all its copies."""
    added = gradient.ndim - len(shape)
    stretched = tuple(added + axis for axis, length in enumerate(shape) if length == 1)
    return gradient.sum(axis=(*range(added), *stretched)).reshape(shape)


def add_forward(a, b):
    return a + b


def add_backward(dy, a, b):
    return _sum_to(dy, a.shape), _sum_to(dy, b.shape)


def multiply_forward(a, b):
    return a * b


def multiply_backward(dy, a, b):
    return _sum_to(dy * b, a.shape), _sum_to(dy * a, b.shape)


def concat_forward(inputs, axis=1):
    return np.concatenate(inputs, axis)


def concat_backward(dy, inputs, axis=1):
    """One gradient for each input: its own part of dy."""
    cuts = np.cumsum([x.shape[axis] for x in inputs])[:-1]
    return np.split(dy, cuts, axis)


def slice_forward(x, index):
    """`index` is what stands in x[...]: integers, slices, None or Ellipsis."""
    return x[index]


def slice_backward(dy, x, index):
    """What was not taken has no part in the loss."""
    dx = np.zeros_like(x)
    dx[index] = dy
    return dx
