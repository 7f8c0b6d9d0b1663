"""Bad arguments: each is refused with an error that names the argument, says what came and what is wanted."""

import math

import numpy as np
import pytest

from helpers import normal, raises
from pycnn import functional as F
from pycnn import losses, nn, optim

IMAGES = normal((2, 3, 8, 8))

# What Conv2d, as any layer, is called with; the words its message must hold.
BAD_INPUTS = {
    "too few axes": (normal((3, 8, 8)), ValueError, ("x", "(3, 8, 8)", "4")),
    "too many axes": (normal((1, 2, 3, 8, 8)), ValueError, ("x", "(1, 2, 3, 8, 8)", "4")),
    "a number": (np.float32(1), (TypeError, ValueError), ("x",)),
    "channels": (normal((2, 4, 8, 8)), ValueError, ("x", "4", "3")),
    "float64": (IMAGES.astype(np.float64), TypeError, ("x", "float64", "float32")),
    "float16": (IMAGES.astype(np.float16), TypeError, ("x", "float16", "float32")),
    "complex": (IMAGES.astype(np.complex64), TypeError, ("x", "complex64", "float32")),
    "integers": (IMAGES.astype(np.int32), TypeError, ("x", "int32", "float32")),
    "bytes of an image": (IMAGES.astype(np.uint8), TypeError, ("x", "uint8", "float32")),
    "booleans": (IMAGES > 0, TypeError, ("x", "bool", "float32")),
    "objects": (IMAGES.astype(object), TypeError, ("x", "float32")),
    "records": (np.zeros((2, 3, 8, 8), [("a", "f4")]), TypeError, ("x", "float32")),
    "None": (None, TypeError, ("x", "NoneType")),
    "text": ("image.png", TypeError, ("x", "str")),
    "a list": ([[[[1.0]]]], TypeError, ("x", "list")),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_input(name):
    x, error, words = BAD_INPUTS[name]
    layer = nn.Conv2d(3, 4, 3)
    with raises(error, *words):
        layer(x)
    assert layer(IMAGES).shape == (2, 4, 6, 6), "the layer works on after an error"


@pytest.mark.parametrize(
    "name", [n for n, (_, error, _) in BAD_INPUTS.items() if error is TypeError and n != "float64"]
)
@pytest.mark.parametrize("layer", [nn.ReLU(), nn.MaxPool2d(2), nn.Sequential(nn.Conv2d(3, 4, 3))], ids=str)
def test_type_of_the_input_of_other_layers(name, layer):
    """A layer without parameters works in float32 and in float64, as its input comes; in nothing else."""
    x, error, words = BAD_INPUTS[name]
    with raises(error, *words):
        layer(x)


def test_float64_layer_refuses_float32():
    with raises(TypeError, "x", "float32", "float64"):
        nn.Conv2d(3, 4, 3).double()(IMAGES)


# Arguments of constructors, and what the message must hold.
BAD_ARGUMENTS = {
    "in_channels zero": (lambda: nn.Conv2d(0, 4, 3), ValueError, ("in_channels", "0")),
    "out_channels negative": (lambda: nn.Conv2d(3, -4, 3), ValueError, ("out_channels", "-4")),
    "channels not whole": (lambda: nn.Conv2d(3.5, 4, 3), TypeError, ("in_channels", "float", "int")),
    "kernel_size zero": (lambda: nn.Conv2d(3, 4, 0), ValueError, ("kernel_size", "0")),
    "kernel_size of three": (lambda: nn.Conv2d(3, 4, (3, 3, 3)), ValueError, ("kernel_size", "(3, 3, 3)")),
    "kernel_size text": (lambda: nn.Conv2d(3, 4, "3"), TypeError, ("kernel_size", "str", "int")),
    "kernel_size not whole": (lambda: nn.Conv2d(3, 4, 2.5), TypeError, ("kernel_size", "float", "int")),
    "stride zero": (lambda: nn.Conv2d(3, 4, 3, stride=0), ValueError, ("stride", "0")),
    "stride negative": (lambda: nn.Conv2d(3, 4, 3, stride=(1, -2)), ValueError, ("stride", "-2")),
    "dilation zero": (lambda: nn.Conv2d(3, 4, 3, dilation=0), ValueError, ("dilation", "0")),
    "padding negative": (lambda: nn.Conv2d(3, 4, 3, padding=-1), ValueError, ("padding", "-1")),
    "padding of three": (lambda: nn.Conv2d(3, 4, 3, padding=(1, 1, 1)), ValueError, ("padding", "(1, 1, 1)")),
    "padding unknown": (lambda: nn.Conv2d(3, 4, 3, padding="full"), ValueError, ("padding", "full", "same")),
    "padding same with stride": (
        lambda: nn.Conv2d(3, 4, 3, stride=2, padding="same"),
        ValueError,
        ("padding", "same", "stride"),
    ),
    "groups zero": (lambda: nn.Conv2d(3, 4, 3, groups=0), ValueError, ("groups", "0")),
    "groups and in_channels": (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, ("groups", "2", "3")),
    "groups and out_channels": (lambda: nn.Conv2d(3, 4, 3, groups=3), ValueError, ("groups", "3", "4")),
    "output_padding": (
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=2),
        ValueError,
        ("output_padding", "2"),
    ),
    "in_features": (lambda: nn.Linear(0, 3), ValueError, ("in_features", "0")),
    "num_features": (lambda: nn.BatchNorm2d(-1), ValueError, ("num_features", "-1")),
    "eps": (lambda: nn.BatchNorm2d(3, eps=-1e-5), ValueError, ("eps", "-1e-05")),
    "num_groups": (lambda: nn.GroupNorm(2, 3), ValueError, ("num_groups", "2", "3")),
    "p below 0": (lambda: nn.Dropout(-0.1), ValueError, ("p", "-0.1")),
    "p above 1": (lambda: nn.Dropout(1.5), ValueError, ("p", "1.5")),
    "p NaN": (lambda: nn.Dropout(math.nan), ValueError, ("p", "nan")),
    "pool kernel_size": (lambda: nn.MaxPool2d(0), ValueError, ("kernel_size", "0")),
    "pool stride": (lambda: nn.AvgPool2d(2, stride=-1), ValueError, ("stride", "-1")),
    "pool padding": (lambda: nn.MaxPool2d(2, padding=2), ValueError, ("padding", "2")),
    "divisor_override": (lambda: nn.AvgPool2d(2, divisor_override=0), ValueError, ("divisor_override", "0")),
    "adaptive output_size": (lambda: nn.AdaptiveAvgPool2d(-1), ValueError, ("output_size", "-1")),
    "upsample mode": (
        lambda: nn.Upsample(scale_factor=2, mode="cubic"),
        ValueError,
        ("mode", "cubic", "bilinear"),
    ),
    "upsample without size": (lambda: nn.Upsample(), ValueError, ("size", "scale_factor")),
    "upsample with both": (lambda: nn.Upsample(size=4, scale_factor=2), ValueError, ("size", "scale_factor")),
    "scale_factor": (lambda: nn.Upsample(scale_factor=-2), ValueError, ("scale_factor", "-2")),
    "gelu approximate": (lambda: nn.GELU(approximate="erf"), ValueError, ("approximate", "erf", "tanh")),
    "reduction": (lambda: losses.MSELoss(reduction="average"), ValueError, ("reduction", "average", "mean")),
    "label_smoothing": (
        lambda: losses.CrossEntropyLoss(label_smoothing=1.5),
        ValueError,
        ("label_smoothing", "1.5"),
    ),
    "lr": (lambda: optim.SGD(nn.Linear(2, 2).parameters(), lr=-1), ValueError, ("lr", "-1")),
    "lr NaN": (lambda: optim.SGD(nn.Linear(2, 2).parameters(), lr=math.nan), ValueError, ("lr", "nan")),
    "momentum": (
        lambda: optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=-0.5),
        ValueError,
        ("momentum", "-0.5"),
    ),
    "nesterov": (
        lambda: optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, nesterov=True),
        ValueError,
        ("nesterov", "momentum"),
    ),
    "betas": (
        lambda: optim.Adam(nn.Linear(2, 2).parameters(), betas=(0.9, 1.0)),
        ValueError,
        ("betas", "1.0"),
    ),
    "weight_decay": (
        lambda: optim.AdamW(nn.Linear(2, 2).parameters(), weight_decay=-1),
        ValueError,
        ("weight_decay", "-1"),
    ),
    "no parameters": (lambda: optim.SGD([], lr=0.1), ValueError, ("params",)),
    "arrays for parameters": (
        lambda: optim.SGD([np.zeros(3, np.float32)], lr=0.1),
        TypeError,
        ("params", "ndarray", "Parameter"),
    ),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_argument(name):
    make, error, words = BAD_ARGUMENTS[name]
    with raises(error, *words):
        make()


# Sizes whose product is beyond any memory, or beyond a 64-bit number.
HUGE = {
    "weights": lambda: nn.Linear(2**40, 2**40),
    "kernel": lambda: nn.Conv2d(2**31, 2**31, 7),
    "padding": lambda: nn.Conv2d(3, 4, 3, padding=2**62)(IMAGES),
    "padding beyond 64 bits": lambda: nn.Conv2d(3, 4, 3, padding=10**30)(IMAGES),
    "dilation": lambda: nn.Conv2d(3, 4, 3, dilation=2**62)(IMAGES),
    "pool": lambda: nn.MaxPool2d(2**62, padding=2**61)(IMAGES),
    "upsample": lambda: nn.Upsample(size=(2**31, 2**31))(IMAGES),
    "upsample factor": lambda: nn.Upsample(scale_factor=1e30)(IMAGES),
    "transposed stride": lambda: nn.ConvTranspose2d(3, 4, 3, stride=2**62)(IMAGES),
    "adaptive": lambda: nn.AdaptiveAvgPool2d(2**40)(IMAGES),
}


@pytest.mark.parametrize("name", HUGE)
def test_sizes_that_overflow(name):
    with pytest.raises(ValueError):
        HUGE[name]()


# Inputs that the layer's arguments do not fit.
MISFITS = {
    "kernel larger than the image": (nn.Conv2d(3, 4, 9), IMAGES, ("kernel_size", "9", "8")),
    "dilated kernel larger": (nn.Conv2d(3, 4, 3, dilation=4), IMAGES, ("kernel_size", "3", "8")),
    "no output left": (nn.ConvTranspose2d(3, 4, 1, padding=4), IMAGES, ("padding", "4")),
    "pool larger than the image": (nn.MaxPool2d(9), IMAGES, ("kernel_size", "9", "8")),
    "features": (nn.Linear(5, 2), IMAGES, ("x", "8", "5")),
    "batch norm channels": (nn.BatchNorm2d(4), IMAGES, ("x", "3", "4")),
    "batch norm axes": (nn.BatchNorm2d(3), normal((2, 3)), ("x", "(2, 3)", "4")),
    "group norm channels": (nn.GroupNorm(2, 4), IMAGES, ("x", "3", "4")),
    "layer norm": (nn.LayerNorm((8, 7)), IMAGES, ("x", "(8, 7)", "(2, 3, 8, 8)")),
    "prelu slopes": (nn.PReLU(5), IMAGES, ("x", "3", "5")),
    "softmax dim": (nn.Softmax(dim=4), IMAGES, ("dim", "4")),
    "flatten dims": (nn.Flatten(2, 1), IMAGES, ("start_dim", "2", "1")),
}


@pytest.mark.parametrize("name", MISFITS)
def test_input_that_does_not_fit(name):
    layer, x, words = MISFITS[name]
    with raises(ValueError, *words):
        layer(x)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Flatten())], ids=str)
def test_backward_before_forward(layer):
    with raises(RuntimeError, "backward", "forward"):
        layer.backward(IMAGES)


def test_gradient_of_the_output():
    layer = nn.Conv2d(3, 4, 3)
    layer(IMAGES)
    with raises(ValueError, "dy", "(2, 3, 8, 8)", "(2, 4, 6, 6)"):
        layer.backward(IMAGES)
    with raises(TypeError, "dy", "float64", "float32"):
        layer.backward(np.zeros((2, 4, 6, 6)))
    with raises(TypeError, "dy", "NoneType"):
        layer.backward(None)


# loss, logits, targets, error, words
LOGITS = normal((2, 3))
BAD_TARGETS = {
    "above the classes": (np.array([0, 3]), ValueError, ("targets", "3")),
    "below zero": (np.array([0, -1]), ValueError, ("targets", "-1")),
    "far above, in an unsigned type": (np.array([0, 2**64 - 1], np.uint64), ValueError, ("targets",)),
    "floats": (np.array([0.0, 1.0]), TypeError, ("targets", "float64", "integer")),
    "NaN": (np.array([0.0, math.nan]), TypeError, ("targets", "float64", "integer")),
    "too many": (np.array([0, 1, 2]), ValueError, ("targets", "(3,)", "(2,)")),
    "one-hot": (np.eye(3, dtype=int)[:2], ValueError, ("targets", "(2, 3)", "(2,)")),
    "None": (None, TypeError, ("targets", "NoneType")),
    "a list": ([0, 1], TypeError, ("targets", "list")),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
@pytest.mark.parametrize(
    "loss", [losses.CrossEntropyLoss(), losses.NLLLoss()], ids=lambda v: type(v).__name__
)
def test_class_targets(name, loss):
    targets, error, words = BAD_TARGETS[name]
    with raises(error, *words):
        loss(LOGITS, targets)


@pytest.mark.parametrize(
    "loss", [losses.MSELoss(), losses.L1Loss(), losses.BCEWithLogitsLoss()], ids=lambda v: type(v).__name__
)
def test_targets_like_the_input(loss):
    with raises(ValueError, "targets", "(2, 2)", "(2, 3)"):
        loss(LOGITS, LOGITS[:, :2])
    with raises(TypeError, "targets", "float64", "float32"):
        loss(LOGITS, LOGITS.astype(np.float64))
    with raises(TypeError, "targets", "int64", "float32"):
        loss(LOGITS, np.zeros((2, 3), np.int64))


def test_logits():
    targets = np.array([0, 1])
    with raises(TypeError, "logits", "int64", "float32"):
        losses.CrossEntropyLoss()(np.zeros((2, 3), np.int64), targets)
    with raises(ValueError, "logits", "(3,)"):
        losses.CrossEntropyLoss()(normal(3), targets)


def test_class_weights():
    with raises(ValueError, "weight", "2", "3"):
        losses.CrossEntropyLoss(weight=np.ones(2, np.float32))(LOGITS, np.array([0, 1]))


def test_loss_backward_before_forward():
    with raises(RuntimeError, "backward", "forward"):
        losses.MSELoss().backward()


def test_assigning_parameters():
    layer = nn.Linear(3, 2)
    before = layer.weight.data.copy()
    with raises(ValueError, "data", "(3, 2)", "(2, 3)"):
        layer.weight.data = np.zeros((3, 2), np.float32)
    with raises(TypeError, "data", "complex64", "float32"):
        layer.weight.data = np.zeros((2, 3), np.complex64)
    np.testing.assert_array_equal(layer.weight.data, before)


def test_state_dict():
    """A refused state leaves the model as it was."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = {key: np.array(value) for key, value in model.state_dict().items()}
    changed = {key: value + 1 for key, value in before.items()}
    with raises(ValueError, "1.weight", "(5, 2)", "(1, 2)"):
        model.load_state_dict({**changed, "1.weight": np.zeros((5, 2), np.float32)})
    with raises(ValueError, "1.weight"):
        model.load_state_dict({key: value for key, value in changed.items() if key != "1.weight"})
    with raises(ValueError, "2.weight"):
        model.load_state_dict({**changed, "2.weight": np.zeros((2, 2), np.float32)})
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


class Forward(nn.Module):
    """A Module whose forward is a given function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# A symbolic tensor has a shape and no values.
NOT_SYMBOLIC = {
    "if": lambda x: x if x else x * x,
    "comparison": lambda x: x if x > 0 else x * x,
    "float()": lambda x: x * float(x),
    "NumPy function": lambda x: np.exp(x),
    "NumPy conversion": lambda x: np.asarray(x),
    "iteration": lambda x: sum(x),
}


@pytest.mark.parametrize("name", NOT_SYMBOLIC)
def test_symbolic_tensors_have_no_values(name):
    with pytest.raises(TypeError):
        Forward(NOT_SYMBOLIC[name])(IMAGES)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x + x[:, :2], ("(2, 3, 8, 8)", "(2, 2, 8, 8)")),
        (lambda x: F.concat([x, x[:, :, :4]], dim=1), ("(2, 3, 8, 8)", "(2, 3, 4, 8)")),
    ],
)
def test_operators_on_shapes_that_do_not_fit(function, words):
    with raises(ValueError, *words):
        Forward(function)(IMAGES)


def test_forward_must_return_a_tensor():
    with pytest.raises(TypeError):
        Forward(lambda x: None)(IMAGES)
