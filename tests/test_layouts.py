"""Whatever the memory of an array, its values decide: the same bits come out, and nothing of the caller's is
written.
"""

import numpy as np
import pytest

from helpers import LAYOUTS, byteswapped, normal, randomize
from pycnn import losses, nn

LAYERS = {
    "Conv2d": lambda: nn.Conv2d(5, 9, 3, padding=1),
    "Conv2d depthwise": lambda: nn.Conv2d(5, 5, 3, padding=1, groups=5),
    "Conv2d 1x1": lambda: nn.Conv2d(5, 9, 1),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(5, 9, 2, stride=2),
    "Linear": lambda: nn.Linear(6, 9),
    "BatchNorm2d": lambda: nn.BatchNorm2d(5),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(5, affine=True),
    "LayerNorm": lambda: nn.LayerNorm((4, 6)),
    "GroupNorm": lambda: nn.GroupNorm(1, 5),
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "PReLU": lambda: nn.PReLU(5),
    "Softmax": lambda: nn.Softmax(dim=1),
    "MaxPool2d": lambda: nn.MaxPool2d(2),
    "AvgPool2d": lambda: nn.AvgPool2d(3, 2, 1),
    "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d((3, 2)),
    "Upsample": lambda: nn.Upsample(scale_factor=2),
    "Flatten": nn.Flatten,
    "Identity": nn.Identity,
    "Sequential": lambda: nn.Sequential(nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
SHAPE = (3, 5, 4, 6)


def passes(layer, x, dy):
    """y, dx and all gradients of one forward and backward, as copies."""
    layer.zero_grad()
    y = np.array(layer(x))
    dx = np.array(layer.backward(dy))
    return [y, dx, *(np.array(p.grad) for p in layer.parameters())]


@every_layer
@every_layout
def test_same_bits_from_every_layout(name, layout):
    layer = randomize(LAYERS[name]())
    x = normal(SHAPE)
    dy = normal(layer(x).shape, seed=1)
    for got, want in zip(passes(layer, layout(x), layout(dy)), passes(layer, x, dy), strict=True):
        np.testing.assert_array_equal(got, want)


@every_layer
@every_layout
def test_inputs_are_not_written(name, layout):
    layer = LAYERS[name]()
    x = layout(normal(SHAPE))
    dy = layout(normal(layer(x).shape, seed=1))
    passes(layer, x, dy)
    np.testing.assert_array_equal(x, normal(SHAPE))
    np.testing.assert_array_equal(dy, normal(dy.shape, seed=1))


@every_layer
def test_byteswapped_is_taken_right_or_refused_by_name(name):
    layer = randomize(LAYERS[name]())
    want = np.array(layer(normal(SHAPE)))
    try:
        got = layer(byteswapped(normal(SHAPE)))
    except TypeError as error:
        assert str(error).startswith("x:")
    else:
        np.testing.assert_array_equal(got, want)


@every_layer
def test_what_was_given_out_stays_as_it_was(name):
    """A result is the caller's: no later call writes into it, and writing into it disturbs no later call."""
    layer = randomize(LAYERS[name]())
    x = normal(SHAPE)
    y = layer(x)
    dy = normal(y.shape, seed=1)
    dx = layer.backward(dy)
    kept_y, kept_dx = y.copy(), dx.copy()

    other = layer(normal(SHAPE, seed=2))
    layer.backward(normal(y.shape, seed=3))
    np.testing.assert_array_equal(y, kept_y)
    np.testing.assert_array_equal(dx, kept_dx)

    other[...] = np.nan
    for got, want in zip((layer(x), layer.backward(dy)), (kept_y, kept_dx), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", [n for n in LAYERS if n not in ("Flatten", "Sequential")])
def test_images_come_out_channels_last(name):
    layer = LAYERS[name]()
    y = layer(normal(SHAPE))
    dx = layer.backward(normal(y.shape))
    for image in (y, dx):
        assert image.transpose(0, 2, 3, 1).flags.c_contiguous, (
            f"strides {image.strides} of shape {image.shape}"
        )


@pytest.mark.parametrize("integer", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
@every_layout
def test_targets_of_every_integer_type_and_layout(integer, layout):
    logits, targets = normal((3, 4, 2, 5)), np.random.default_rng(0).integers(0, 4, (3, 2, 5))
    loss = losses.CrossEntropyLoss()
    want = loss(logits, targets)
    dwant = np.array(loss.backward())
    assert loss(layout(logits), layout(targets.astype(integer))) == want
    np.testing.assert_array_equal(loss.backward(), dwant)


def test_a_window_onto_a_larger_image():
    """Strides that no transposition explains: a crop of a batch of interleaved images."""
    large = normal((2, 9, 11, 8))  # n, h, w, c
    crop = large[:, 1:8:2, 2:8, 3:].transpose(0, 3, 1, 2)
    layer = randomize(nn.Conv2d(5, 7, 3))
    np.testing.assert_array_equal(layer(crop), layer(np.ascontiguousarray(crop)))


def test_broadcast_memory():
    """Zero strides: every pixel is the same number in memory."""
    x = np.broadcast_to(np.float32(2), (2, 3, 4, 4))
    layer = randomize(nn.Conv2d(3, 2, 3))
    np.testing.assert_array_equal(layer(x), layer(x.copy()))


def test_parameters_take_any_layout():
    layer = nn.Conv2d(3, 4, 3)
    for layout in LAYOUTS.values():
        weight = normal((4, 3, 3, 3), seed=5)
        layer.weight.data[...] = 0
        layer.weight.data = layout(weight)
        np.testing.assert_array_equal(layer.weight.data, weight)
