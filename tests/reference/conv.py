"""Convolution and transposed convolution.

What deep learning calls a convolution is a cross-correlation. With stride (sh, sw), dilation (dh, dw) and
zero padding,

    y[n, o, i, j] = bias[o] + sum over c, r, s of
                    weight[o, c, r, s] * x[n, c, i*sh + r*dh - top, j*sw + s*dw - left]

Fix one tap (r, s) of the kernel. The pixels that this tap sees, over all outputs (i, j), are one strided
window of the padded image, and the sum over c is a matrix product. So a convolution is a sum of kh*kw matrix
products:

    y          +=  weight[:, :, r, s]   @  pixels(r, s)

Since y is linear in x and in weight, the chain rule only transposes each of these products:

    pixels(r, s) gets           weight[:, :, r, s].T @ dy        (backward-data)
    dweight[:, :, r, s]     =   dy @ pixels(r, s).T              (backward-weights)

Groups cut the channels into independent convolutions; depthwise is the case groups == ic. They are one more
leading axis of the same matrix products.

The transposed convolution needs no arithmetic of its own. It is the linear map whose matrix is the transpose
of a convolution's: its forward is that convolution's backward-data, and its backward-data is that
convolution's forward.

Shapes: x (n, ic, ih, iw), weight (oc, ic/groups, kh, kw), bias (oc,), y (n, oc, oh, ow); for the transposed
convolution weight is (ic, oc/groups, kh, kw). `padding` is (top, left, bottom, right); `stride`, `dilation`
and `output_padding` are (vertical, horizontal).

Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), arXiv:1603.07285, draws all
of these.
"""

import numpy as np


def output_size(size, kernel, stride, padding, dilation):
    """(oh, ow) of a convolution over an image of `size` (ih, iw)."""
    top, left, bottom, right = padding
    oh = (size[0] + top + bottom - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    ow = (size[1] + left + right - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    return oh, ow


def same_padding(kernel, dilation=(1, 1)):
    """The padding that keeps the image size at stride 1. An odd total puts the extra row at the bottom,
    right.
    """
    total_h = dilation[0] * (kernel[0] - 1)
    total_w = dilation[1] * (kernel[1] - 1)
    top, left = total_h // 2, total_w // 2
    return top, left, total_h - top, total_w - left


def _pad(x, padding):
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def _window(tap, out, stride, dilation):
    """Index of the padded pixels that the kernel tap (r, s) sees, one for each output pixel."""
    rows, cols = (
        slice(t * d, t * d + (o - 1) * s + 1, s)
        for t, o, s, d in zip(tap, out, stride, dilation, strict=True)
    )
    return ..., rows, cols


def conv2d_forward(x, weight, bias=None, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    n, ic, ih, iw = x.shape
    oc, _, kh, kw = weight.shape
    oh, ow = output_size((ih, iw), (kh, kw), stride, padding, dilation)
    padded = _pad(x, padding)
    weight = weight.reshape(groups, oc // groups, ic // groups, kh, kw)

    y = np.zeros((n, groups, oc // groups, oh * ow), x.dtype)
    for r, s in np.ndindex(kh, kw):
        pixels = padded[_window((r, s), (oh, ow), stride, dilation)]
        y += weight[..., r, s] @ pixels.reshape(n, groups, ic // groups, oh * ow)

    y = y.reshape(n, oc, oh, ow)
    return y if bias is None else y + bias[:, None, None]


def conv2d_backward_data(dy, weight, size, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    """dx of shape (n, ic, *size). Several outputs may have seen the same pixel: their gradients add."""
    n, oc, oh, ow = dy.shape
    _, ic_per_group, kh, kw = weight.shape
    top, left, bottom, right = padding
    ih, iw = size
    weight = weight.reshape(groups, oc // groups, ic_per_group, kh, kw)
    dy = dy.reshape(n, groups, oc // groups, oh * ow)

    padded = np.zeros((n, groups * ic_per_group, top + ih + bottom, left + iw + right), dy.dtype)
    for r, s in np.ndindex(kh, kw):
        dpixels = weight[..., r, s].swapaxes(1, 2) @ dy
        padded[_window((r, s), (oh, ow), stride, dilation)] += dpixels.reshape(
            n, groups * ic_per_group, oh, ow
        )

    return padded[:, :, top : top + ih, left : left + iw]


def conv2d_backward_weights(dy, x, kernel, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    """dweight of shape (oc, ic/groups, *kernel), summed over the batch and all pixels."""
    n, oc, oh, ow = dy.shape
    ic = x.shape[1]
    padded = _pad(x, padding)
    dy = dy.reshape(n, groups, oc // groups, oh * ow)

    dweight = np.zeros((groups, oc // groups, ic // groups, *kernel), dy.dtype)
    for r, s in np.ndindex(*kernel):
        pixels = padded[_window((r, s), (oh, ow), stride, dilation)].reshape(n, groups, ic // groups, oh * ow)
        dweight[..., r, s] = (dy @ pixels.swapaxes(2, 3)).sum(axis=0)

    return dweight.reshape(oc, ic // groups, *kernel)


def conv2d_backward(dy, x, weight, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    """Returns dx, dweight, dbias. The bias is added to every pixel: its gradient is the sum over all."""
    geometry = stride, padding, dilation, groups
    dx = conv2d_backward_data(dy, weight, x.shape[2:], *geometry)
    dweight = conv2d_backward_weights(dy, x, weight.shape[2:], *geometry)
    return dx, dweight, dy.sum(axis=(0, 2, 3))


def transposed_output_size(size, kernel, stride, padding, output_padding, dilation):
    """(oh, ow) of a transposed convolution. A stride-s convolution maps s sizes to one: `output_padding`
    picks which.
    """
    top, left, bottom, right = padding
    oh = (size[0] - 1) * stride[0] - top - bottom + dilation[0] * (kernel[0] - 1) + 1 + output_padding[0]
    ow = (size[1] - 1) * stride[1] - left - right + dilation[1] * (kernel[1] - 1) + 1 + output_padding[1]
    return oh, ow


def conv_transpose2d_forward(
    x,
    weight,
    bias=None,
    stride=(1, 1),
    padding=(0, 0, 0, 0),
    output_padding=(0, 0),
    groups=1,
    dilation=(1, 1),
):
    out = transposed_output_size(x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation)
    y = conv2d_backward_data(x, weight, out, stride, padding, dilation, groups)
    return y if bias is None else y + bias[:, None, None]


def conv_transpose2d_backward(
    dy, x, weight, stride=(1, 1), padding=(0, 0, 0, 0), output_padding=(0, 0), groups=1, dilation=(1, 1)
):
    """Returns dx, dweight, dbias. Against the convolution, x and dy have changed places."""
    geometry = stride, padding, dilation, groups
    ih, iw = x.shape[2:]
    dx = conv2d_forward(dy, weight, None, *geometry)
    # An output padding of a whole stride (allowed below the dilation) lets the convolution find room for more
    # pixels than x has. Those took no part in the forward.
    dx = dx[:, :, :ih, :iw]
    dweight = conv2d_backward_weights(x, dy, weight.shape[2:], *geometry)
    return dx, dweight, dy.sum(axis=(0, 2, 3))
