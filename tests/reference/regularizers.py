"""Penalties on the size of the weights, added to the loss.

L1           l * sum |w|          gradient  l * sign(w)   drives small weights to exactly zero
L2           l * sum w^2          gradient  2 * l * w     (no 1/2: SGD's weight_decay d is an L2 of d/2)
elastic net  both
"""

import numpy as np


def l1_penalty(w, strength):
    return strength * np.abs(w).sum()


def l1_gradient(w, strength):
    """The subgradient that is 0 at w = 0."""
    return strength * np.sign(w)


def l1_proximal(w, strength, lr):
    """The proximal step of L1 (soft threshold): unlike a subgradient step it lands on zero and stays there.

    Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sciences 2 (2009).
    """
    return np.sign(w) * np.maximum(np.abs(w) - lr * strength, 0)


def l2_penalty(w, strength):
    return strength * (w * w).sum()


def l2_gradient(w, strength):
    return 2 * strength * w


def elastic_net_penalty(w, l1, l2):
    return l1_penalty(w, l1) + l2_penalty(w, l2)


def elastic_net_gradient(w, l1, l2):
    return l1_gradient(w, l1) + l2_gradient(w, l2)
