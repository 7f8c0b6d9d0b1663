"""The fully connected layer: y = x W^T + b on the last axis.

Shapes: x (*, in_features), weight (out_features, in_features), bias (out_features,), y (*, out_features),
where * is any number of leading axes.
"""


def linear_forward(x, weight, bias=None):
    y = x @ weight.T
    return y if bias is None else y + bias


def linear_backward(dy, x, weight):
    """Returns dx, dweight, dbias. The leading axes are all batch: parameters gather gradient from each of
    them.
    """
    rows_x = x.reshape(-1, weight.shape[1])
    rows_dy = dy.reshape(-1, weight.shape[0])
    return dy @ weight, rows_dy.T @ rows_x, rows_dy.sum(axis=0)
