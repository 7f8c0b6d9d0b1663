"""Losses. Each forward gives one number (or, with reduction="none", one for each target); each backward the
gradient of that number with respect to the first argument.

Reductions: "mean" divides by the number of targets (in cross-entropy and NLL by their total class weight),
"sum" does not divide. The mean over an empty batch is 0, so that it does not spoil a running total; the mean over
targets that are all ignored is 0/0, NaN, as in PyTorch. The gradient is 0 either way.

In the backward functions `dloss` is the gradient of whatever follows the loss: a number, or with
reduction="none" an array like the targets.
"""

import numpy as np

from . import activations


def _reduce(losses, divisor, reduction):
    if reduction == "none":
        return losses
    if reduction == "mean" and losses.size and not divisor:
        return losses.dtype.type(np.nan)
    return losses.sum() * _share(divisor, reduction)


def _share(divisor, reduction):
    """What each term's own gradient is multiplied by."""
    if reduction != "mean":
        return 1.0
    return 1 / divisor if divisor else 0.0


def _target_weights(shape, dtype, targets, weight, ignore_index, label_smoothing):
    """Returns q and divisor. The loss of a target is -sum over classes of q * log p; divisor is what "mean"
    divides by.

    q has the logits' shape: 1 at the target's class and 0 elsewhere; smoothing moves `label_smoothing` of it
    evenly to all classes; class weights multiply it; an ignored target's column is all 0.
    """
    classes = shape[1]
    weight = np.ones(classes, dtype) if weight is None else weight
    kept = targets != ignore_index
    label = np.where(kept, targets, 0)

    one_hot = np.moveaxis(np.eye(classes, dtype=dtype)[label], -1, 1)
    smooth = (1 - label_smoothing) * one_hot + label_smoothing / classes
    per_class = weight.reshape(1, -1, *[1] * (len(shape) - 2))
    q = smooth * per_class * np.expand_dims(kept, 1)
    return q, (weight[label] * kept).sum()


def _weighted_log_likelihood(q, log_p):
    """-sum over classes of q * log p, where q = 0 counts as 0 even beside log p = -inf."""
    return -np.multiply(q, log_p, out=np.zeros_like(log_p), where=q != 0).sum(axis=1)


def nll_forward(log_p, targets, weight=None, ignore_index=-100, reduction="mean"):
    """Negative log-likelihood. log_p (n, c) or (n, c, h, w), targets (n,) or (n, h, w) class numbers."""
    q, divisor = _target_weights(log_p.shape, log_p.dtype, targets, weight, ignore_index, 0.0)
    return _reduce(_weighted_log_likelihood(q, log_p), divisor, reduction)


def nll_backward(log_p, targets, weight=None, ignore_index=-100, reduction="mean", dloss=1.0):
    q, divisor = _target_weights(log_p.shape, log_p.dtype, targets, weight, ignore_index, 0.0)
    return -q * np.expand_dims(dloss * _share(divisor, reduction), 1 if np.ndim(dloss) else 0)


def cross_entropy_forward(
    logits, targets, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """NLL of log-softmax. logits (n, c) or (n, c, h, w), targets (n,) or (n, h, w) class numbers.

    Label smoothing: Szegedy et al., "Rethinking the Inception architecture" (2015), arXiv:1512.00567.
    """
    log_p = activations.log_softmax_forward(logits, 1)
    q, divisor = _target_weights(logits.shape, logits.dtype, targets, weight, ignore_index, label_smoothing)
    return _reduce(_weighted_log_likelihood(q, log_p), divisor, reduction)


def cross_entropy_backward(
    logits, targets, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0, dloss=1.0
):
    """Through log-softmax, -sum q log p becomes p * sum(q) - q: for a plain target, "probability minus one-
    hot".
    """
    p = activations.softmax_forward(logits, 1)
    q, divisor = _target_weights(logits.shape, logits.dtype, targets, weight, ignore_index, label_smoothing)
    dlogits = p * q.sum(axis=1, keepdims=True) - q
    return dlogits * np.expand_dims(dloss * _share(divisor, reduction), 1 if np.ndim(dloss) else 0)


def mse_forward(x, target, reduction="mean"):
    return _reduce(np.square(x - target), x.size, reduction)


def mse_backward(x, target, reduction="mean", dloss=1.0):
    return 2 * (x - target) * dloss * _share(x.size, reduction)


def l1_forward(x, target, reduction="mean"):
    return _reduce(np.abs(x - target), x.size, reduction)


def l1_backward(x, target, reduction="mean", dloss=1.0):
    """The subgradient that is 0 where x = target."""
    return np.sign(x - target) * dloss * _share(x.size, reduction)


def bce_with_logits_forward(logits, target, weight=None, pos_weight=None, reduction="mean"):
    """-[ pos_weight * t * log p + (1 - t) * log(1 - p) ] with p = sigmoid(logits), times weight; t in 0..1.

    With -log p = softplus(-x) and -log(1 - p) = x + softplus(-x) it stays finite for any logit. weight and
    pos_weight broadcast against the logits.
    """
    pos_weight = 1 if pos_weight is None else pos_weight
    softplus = np.maximum(-logits, 0) + np.log1p(np.exp(-np.abs(logits)))
    losses = (1 - target) * logits + (1 + (pos_weight - 1) * target) * softplus
    return _reduce(losses if weight is None else losses * weight, logits.size, reduction)


def bce_with_logits_backward(logits, target, weight=None, pos_weight=None, reduction="mean", dloss=1.0):
    pos_weight = 1 if pos_weight is None else pos_weight
    p = activations.sigmoid_forward(logits)
    dlogits = (1 - target) * p - pos_weight * target * (1 - p)
    return (dlogits if weight is None else dlogits * weight) * dloss * _share(logits.size, reduction)
