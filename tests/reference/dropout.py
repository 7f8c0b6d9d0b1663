"""Dropout with a given mask.

Training zeroes each element with probability p and scales the rest by 1/(1-p), so that the expected value
stays and evaluation is the identity ("inverted" dropout). `mask` is 1 where the element is kept, 0 where it
is dropped.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15 (2014).
"""

import numpy as np


def dropout_forward(x, mask, p=0.5):
    if p == 1:  # nothing is kept, and 1/(1-p) has no value
        return np.zeros_like(x)
    return x * mask / (1 - p)


def dropout_backward(dy, mask, p=0.5):
    """The map is linear in x and diagonal: the gradient goes through it unchanged."""
    return dropout_forward(dy, mask, p)
