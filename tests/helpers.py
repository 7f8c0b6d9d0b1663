"""What the tests of the layers share: comparison, memory layouts, checks of values and of gradients."""

import contextlib
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st

from gradcheck import central_difference

DTYPES = (np.float32, np.float64)

# In float64 the oracle and the engine do the same sums in another order.
TOLERANCE_FLOAT64 = 1e-11


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def as_double(x):
    return np.asarray(x, np.float64)


def assert_close(got, want, tolerance, scale=None, name="result"):
    """|got - want| <= tolerance * scale, element by element.

    `scale` is the size of the numbers that were added up to the result; what rounding loses is in proportion
    to it, however small the result came out. It defaults to the largest magnitude in `want`, at least 1.
    """
    want = as_double(want)
    assert got.shape == want.shape, f"{name}: shape {got.shape}, expected {want.shape}"
    if want.size == 0:
        return
    assert np.isfinite(got).all(), f"{name}: not finite"
    scale = max(1.0, np.abs(want).max()) if scale is None else np.maximum(1e-30, scale)
    error = np.max(np.abs(as_double(got) - want) / scale)
    assert error <= tolerance, f"{name}: error {error:.3g} of the scale, {tolerance:.3g} is allowed"


@contextlib.contextmanager
def raises(error, *words):
    """The error comes, and its message holds all the words: the argument, what came, what is wanted."""
    with pytest.raises(error) as caught:
        yield
    message = str(caught.value)
    missing = [word for word in words if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message)]
    assert not missing, f"the message lacks {missing}: {message}"


# Memory layouts. Each takes an array and returns one with the same dtype, shape and values, but other memory.


def contiguous(x):
    return np.ascontiguousarray(x)


def channels_last(x):
    """Axis 1 moves fastest: (n, h, w, c) in memory for an image."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if x.ndim > 1 else x.copy()


def fortran(x):
    return np.asfortranarray(x)


def strided(x):
    """Every second element of a larger array, whose other elements are NaN, or a number no test uses."""
    larger = np.full([2 * length + 1 for length in x.shape], np.nan if x.dtype.kind == "f" else 113, x.dtype)
    view = larger[tuple(slice(1, 2 * length + 1, 2) for length in x.shape)]
    view[...] = x
    return view


def reversed_axes(x):
    """Negative strides on all axes."""
    backwards = (slice(None, None, -1),) * x.ndim
    return np.ascontiguousarray(x[backwards])[backwards]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def unaligned(x):
    """One byte past an aligned address."""
    memory = np.zeros(x.nbytes + x.itemsize + 1, np.uint8)
    offset = 1 + -memory.ctypes.data % x.itemsize
    view = memory[offset : offset + x.nbytes].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


LAYOUTS = {
    "contiguous": contiguous,
    "channels_last": channels_last,
    "fortran": fortran,
    "strided": strided,
    "reversed_axes": reversed_axes,
    "read_only": read_only,
    "unaligned": unaligned,
}
layouts = st.sampled_from(sorted(LAYOUTS)).map(LAYOUTS.__getitem__)


def byteswapped(x):
    """The same values in the other byte order. A dtype of its own: the engine may take it or refuse it by
    name.
    """
    return x.astype(x.dtype.newbyteorder())


# The layers against the oracle.


def randomize(layer, seed=100):
    """Gives every parameter normal values in place, biases and normalization weights too."""
    for number, parameter in enumerate(layer.parameters()):
        parameter.data[...] = normal(parameter.data.shape, parameter.data.dtype, seed + number)
    return layer


def in_dtype(layer, dtype):
    return layer.double() if dtype == np.float64 else layer


def buffer(layer, name):
    """A copy of a running statistic."""
    return np.array(layer.state_dict()[name])


def check_layer(
    layer,
    x,
    forward: Callable,
    backward: Callable,
    tolerance: float,
    *,
    layout: Callable = contiguous,
    products: bool = False,
):
    """y, dx and the gradient of every parameter are what the oracle says, within the tolerance.

    forward(x, *parameters) and backward(dy, x, *parameters) are the oracle's, in the order of
    layer.parameters(); backward returns dx alone for a layer without parameters. In float64 the tolerance is
    TOLERANCE_FLOAT64.

    products: the layer sums products. Its rounding error is in proportion to the sum of their magnitudes,
    which is what the oracle gives for absolute values.
    """
    if x.dtype == np.float64:
        tolerance = TOLERANCE_FLOAT64
    parameters = list(layer.parameters())
    values = [as_double(p.data) for p in parameters]
    dy = normal(forward(as_double(x), *values).shape, x.dtype, seed=99)

    layer.zero_grad()
    y = layer(layout(x))
    dx = layer.backward(layout(dy))

    want = _oracle(forward, backward, dy, x, values)
    got = {"y": y, "dx": dx, **{f"gradient {i}": p.grad for i, p in enumerate(parameters)}}
    if products:
        magnitudes = _oracle(forward, backward, np.abs(dy), np.abs(x), [np.abs(v) for v in values])
        scales = {name: magnitude.max(initial=0) for name, magnitude in magnitudes.items()}
    else:
        # A parameter's gradient gathers dy.size / gradient.size terms of either sign.
        scales = {
            name: max(1, np.abs(w).max(initial=0), math.sqrt(dy.size / max(1, w.size)))
            for name, w in want.items()
        }
    assert got.keys() == want.keys()
    for name, w in want.items():
        assert got[name].dtype == x.dtype, f"{name}: {got[name].dtype}, expected {x.dtype}"
        assert_close(got[name], w, tolerance, scales[name], name)


def _oracle(forward, backward, dy, x, parameters):
    dy, x = as_double(dy), as_double(x)
    y, gradients = forward(x, *parameters), backward(dy, x, *parameters)
    dx, *rest = gradients if isinstance(gradients, tuple) else (gradients,)
    rest = [gradient for gradient in rest if gradient is not None][: len(parameters)]
    return {"y": y, "dx": dx, **{f"gradient {i}": gradient for i, gradient in enumerate(rest)}}


def check_gradients(module, x, before: Callable = lambda: None, rtol=1e-5, atol=1e-7):
    """backward is the derivative of forward, by central differences, for x and every parameter.

    The module is turned to float64. `before` runs before each forward: what makes it repeatable, as seeding.
    """
    module.double()
    x = as_double(x).copy()

    def forward():
        before()
        return module(x)

    module.zero_grad()
    y = forward()
    dy = normal(y.shape, np.float64, seed=98)
    dx = module.backward(dy)
    differentiated = {"x": (x, np.array(dx))}
    for name, parameter in module.named_parameters():
        differentiated[name] = parameter.data, np.array(parameter.grad)

    for name, (array, gradient) in differentiated.items():
        by_definition = central_difference(lambda: float((forward() * dy).sum()), array)
        np.testing.assert_allclose(gradient, by_definition, rtol, atol, err_msg=name)
