"""Gradients by central differences: the definition of the derivative, in float64."""

import numpy as np


def central_difference(value, x, step=1e-6):
    """d value() / d x for every element of the float64 array x, which `value` reads and this function moves.

    The truncation error is of order step^2, the rounding error of order 1e-16 / step: together about 1e-10
    for values of order 1.
    """
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + step
        above = value()
        x[index] = kept - step
        below = value()
        x[index] = kept
        gradient[index] = (above - below) / (2 * step)
    return gradient
