"""Batch, instance, layer and group normalization.

All four are one operation over different axes: subtract the mean, divide by the standard deviation, then (if
affine) scale and shift.

    mean = E[x]    var = E[(x - mean)^2]    xhat = (x - mean) / sqrt(var + eps)    y = weight * xhat + bias

    batch      over (n, h, w)         for each channel              weight, bias: (c,)
    instance   over (h, w)            for each image and channel    weight, bias: (c,)
    layer      over the last axes     for each leading index        weight, bias: normalized_shape
    group      over (c/groups, h, w)  for each image and group      weight, bias: (c,)

Backward. Every x in the set moves the mean and the variance of all. With g = dL/dxhat, the paths add up to

    dx = ( g - mean(g) - xhat * mean(g * xhat) ) / sqrt(var + eps)

that is: what is left of g once its components along the constant and along xhat are removed, since moving x
in those directions is undone by the normalization.

The variance is centred. E[x^2] - E[x]^2 is equal on paper, but loses all digits when the mean is large.

Ioffe and Szegedy, "Batch normalization" (2015), arXiv:1502.03167; Ulyanov et al., "Instance normalization"
(2016), arXiv:1607.08022; Ba et al., "Layer normalization" (2016), arXiv:1607.06450; Wu and He, "Group
normalization" (2018), arXiv:1803.08494.
"""

import numpy as np


def _moments(x, axes):
    """Mean and biased variance (divided by the count, not the count - 1) over `axes`, which stay with length
    1.
    """
    mean = x.mean(axis=axes, keepdims=True)
    var = np.square(x - mean).mean(axis=axes, keepdims=True)
    return mean, var


def _normalize(x, axes, eps):
    if x.size == 0:
        return np.zeros_like(x)
    mean, var = _moments(x, axes)
    return (x - mean) / np.sqrt(var + eps)


def _normalize_backward(dxhat, x, axes, eps):
    if x.size == 0:
        return np.zeros_like(x)
    mean, var = _moments(x, axes)
    xhat = (x - mean) / np.sqrt(var + eps)
    along_constant = dxhat.mean(axis=axes, keepdims=True)
    along_xhat = (dxhat * xhat).mean(axis=axes, keepdims=True)
    return (dxhat - along_constant - xhat * along_xhat) / np.sqrt(var + eps)


def _per_channel(parameter):
    """(c,) -> (c, 1, 1), which broadcasts over an image (n, c, h, w)."""
    return parameter[:, None, None]


def _affine(xhat, weight, bias):
    y = xhat if weight is None else xhat * weight
    return y if bias is None else y + bias


def _channel_affine(xhat, weight, bias):
    return _affine(
        xhat, weight if weight is None else _per_channel(weight), bias if bias is None else _per_channel(bias)
    )


def _channel_affine_backward(dy, xhat, weight):
    """Returns dxhat, dweight, dbias."""
    if weight is None:
        return dy, None, None
    return dy * _per_channel(weight), (dy * xhat).sum(axis=(0, 2, 3)), dy.sum(axis=(0, 2, 3))


# Batch normalization, training: the statistics of this batch.


def batch_norm_forward(x, weight=None, bias=None, eps=1e-5):
    return _channel_affine(_normalize(x, (0, 2, 3), eps), weight, bias)


def batch_norm_backward(dy, x, weight=None, eps=1e-5):
    """Returns dx, dweight, dbias."""
    axes = (0, 2, 3)
    dxhat, dweight, dbias = _channel_affine_backward(dy, _normalize(x, axes, eps), weight)
    return _normalize_backward(dxhat, x, axes, eps), dweight, dbias


def batch_norm_running(x, running_mean, running_var, momentum=0.1, batches_before=0):
    """The running statistics after this batch: running = (1 - momentum) * running + momentum * new.

    The variance that is kept is the unbiased one, count/(count - 1) times the one that normalizes.
    momentum=None makes the plain average over all batches: the k-th batch enters with weight 1/k, where k =
    batches_before + 1. An empty batch has no statistics and changes nothing.
    """
    count = x.size // x.shape[1]
    if count == 0:
        return running_mean, running_var
    mean, var = _moments(x, (0, 2, 3))
    unbiased = var * (count / (count - 1))
    share = 1 / (batches_before + 1) if momentum is None else momentum
    return (
        (1 - share) * running_mean + share * mean.reshape(-1),
        (1 - share) * running_var + share * unbiased.reshape(-1),
    )


# Batch normalization, evaluation: the running statistics, which are constants. So this is one affine map per
# channel.


def batch_norm_eval_forward(x, running_mean, running_var, weight=None, bias=None, eps=1e-5):
    xhat = (x - _per_channel(running_mean)) / np.sqrt(_per_channel(running_var) + eps)
    return _channel_affine(xhat, weight, bias)


def batch_norm_eval_backward(dy, x, running_mean, running_var, weight=None, eps=1e-5):
    """Returns dx, dweight, dbias."""
    std = np.sqrt(_per_channel(running_var) + eps)
    dxhat, dweight, dbias = _channel_affine_backward(dy, (x - _per_channel(running_mean)) / std, weight)
    return dxhat / std, dweight, dbias


def instance_norm_forward(x, weight=None, bias=None, eps=1e-5):
    return _channel_affine(_normalize(x, (2, 3), eps), weight, bias)


def instance_norm_backward(dy, x, weight=None, eps=1e-5):
    """Returns dx, dweight, dbias."""
    axes = (2, 3)
    dxhat, dweight, dbias = _channel_affine_backward(dy, _normalize(x, axes, eps), weight)
    return _normalize_backward(dxhat, x, axes, eps), dweight, dbias


def instance_norm_running(x, running_mean, running_var, momentum=0.1):
    """As batch_norm_running, where the new statistics are those of each image, averaged over the batch."""
    count = x.shape[2] * x.shape[3]
    if x.size == 0:
        return running_mean, running_var
    mean, var = _moments(x, (2, 3))
    unbiased = var * (count / (count - 1))
    return (
        (1 - momentum) * running_mean + momentum * mean.mean(axis=0).reshape(-1),
        (1 - momentum) * running_var + momentum * unbiased.mean(axis=0).reshape(-1),
    )


def layer_norm_forward(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    return _affine(_normalize(x, axes, eps), weight, bias)


def layer_norm_backward(dy, x, normalized_shape, weight=None, eps=1e-5):
    """Returns dx, dweight, dbias."""
    leading = x.ndim - len(normalized_shape)
    axes, batch_axes = tuple(range(leading, x.ndim)), tuple(range(leading))
    if weight is None:
        return _normalize_backward(dy, x, axes, eps), None, None
    dweight = (dy * _normalize(x, axes, eps)).sum(axis=batch_axes)
    return _normalize_backward(dy * weight, x, axes, eps), dweight, dy.sum(axis=batch_axes)


def _split(x, groups):
    """(n, c, h, w) -> (n, groups, c/groups * h * w): one row for each set that is normalized together."""
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups * h * w)


def group_norm_forward(x, groups, weight=None, bias=None, eps=1e-5):
    xhat = _normalize(_split(x, groups), (2,), eps).reshape(x.shape)
    return _channel_affine(xhat, weight, bias)


def group_norm_backward(dy, x, groups, weight=None, eps=1e-5):
    """Returns dx, dweight, dbias."""
    xhat = _normalize(_split(x, groups), (2,), eps).reshape(x.shape)
    dxhat, dweight, dbias = _channel_affine_backward(dy, xhat, weight)
    dx = _normalize_backward(_split(dxhat, groups), _split(x, groups), (2,), eps)
    return dx.reshape(x.shape), dweight, dbias
