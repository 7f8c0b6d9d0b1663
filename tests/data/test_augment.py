import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycnn.data import Compose, Cutout, Normalize, RandomAffine, RandomCrop, RandomHorizontalFlip

RANDOM = [
    RandomCrop(3),
    RandomCrop((6, 5), padding=2),
    RandomCrop(5, padding=3, padding_mode="reflect"),
    RandomHorizontalFlip(),
    Cutout(3),
    RandomAffine(30, (0.2, 0.1), (0.8, 1.2)),
]
NAMES = [type(transform).__name__ for transform in RANDOM]


def images(n=16, c=3, h=6, w=7, dtype=np.uint8):
    return np.random.default_rng(1).integers(1, 256, (n, c, h, w)).astype(dtype)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n", [0, 1, 16])
@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("transform", RANDOM, ids=NAMES)
def test_every_random_transform(transform, dtype, c, n):
    x = images(n, c, dtype=dtype)
    before = x.copy()
    out = transform(x, rng())
    assert out.dtype == dtype and out.shape[:2] == (n, c) and out.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(x, before, err_msg="the input was changed")
    np.testing.assert_array_equal(transform(x, rng()), out, err_msg="the same seed gives the same result")
    last = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(transform(last, rng()), out, err_msg="layout does not matter")
    if n == 16:
        assert (transform(x, rng(1)) != out).any()


@pytest.mark.parametrize("transform", [*RANDOM, Normalize()], ids=[*NAMES, "Normalize"])
def test_bad_input(transform):
    with pytest.raises(TypeError, match="x: got list, wanted a NumPy array"):
        transform([1], rng())
    with pytest.raises(TypeError, match="x: got dtype int64, wanted uint8 or float32"):
        transform(images(dtype=np.int64), rng())
    with pytest.raises(ValueError, match=r"x: got shape \(3, 6, 7\), wanted \(n, channels, height, width\)"):
        transform(images()[0], rng())


@pytest.mark.parametrize("transform", RANDOM, ids=NAMES)
def test_bad_generator(transform):
    with pytest.raises(TypeError, match=r"rng: got int, wanted a numpy\.random\.Generator"):
        transform(images(), 0)


def test_normalize_bytes():
    x = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    out = Normalize()(x)
    assert out.dtype == np.float32 and out.min() == 0 and out.max() == 1
    np.testing.assert_array_equal(out, x / np.float32(255))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    ("mean", "std"),
    [(0.5, 0.25), ([0.1, 0.5, 0.9], [0.3, 0.2, 0.1]), (0.5, [0.3, 0.2, 0.1]), ([0.2, 0, 1], 1)],
)
def test_normalize(mean, std, dtype):
    x = images(dtype=dtype)
    full = 255 if dtype == np.uint8 else 1
    shaped = (np.reshape(value, (-1, 1, 1)) for value in (mean, std))
    wanted = (x.astype(np.float64) / full - next(shaped)) / next(shaped)
    out = Normalize(mean, std)(x)
    assert out.dtype == np.float32 and out.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_allclose(out, wanted, rtol=1e-6, atol=1e-5)


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 4),
    st.sampled_from(["constant", "reflect"]),
    st.data(),
)
def test_crops_are_windows_of_the_padded_image(h, w, padding, mode, data):
    if mode == "reflect":
        padding = min(padding, h - 1, w - 1)
    oh = data.draw(st.integers(1, h + 2 * padding))
    ow = data.draw(st.integers(1, w + 2 * padding))
    x = images(4, 2, h, w)
    out = RandomCrop((oh, ow), padding, mode)(x, rng())
    assert out.shape == (4, 2, oh, ow)
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), mode=mode)
    for image, crop in zip(padded, out, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, (oh, ow), axis=(1, 2))
        assert (windows == crop[:, None, None]).all(axis=(0, 3, 4)).any()


def test_every_crop_position_occurs():
    x = np.arange(12, dtype=np.uint8).reshape(1, 1, 3, 4).repeat(500, axis=0)
    corners = RandomCrop((2, 2))(x, rng())[:, 0, 0, 0]
    assert set(corners.tolist()) == {0, 1, 2, 4, 5, 6}
    shifted = RandomCrop((3, 4), padding=1, fill=255)(x, rng())
    assert len({image.tobytes() for image in shifted}) == 9
    assert {int((image == 255).sum()) for image in shifted} == {0, 3, 4, 6}


def test_crop_larger_than_the_image():
    with pytest.raises(
        ValueError, match=r"x: got height and width \(6, 7\), with padding \(8, 9\); wanted at least size"
    ):
        RandomCrop(9, padding=1)(images(), rng())
    with pytest.raises(ValueError, match="wanted more than padding 6 to reflect"):
        RandomCrop(3, padding=6, padding_mode="reflect")(images(), rng())


@pytest.mark.parametrize(("p", "low", "high"), [(0, 0, 0), (1, 1000, 1000), (0.5, 430, 570), (0.1, 60, 140)])
def test_flip(p, low, high):
    x = images(1000, 2, 2, 5)
    out = RandomHorizontalFlip(p)(x, rng())
    flipped = (out == x[..., ::-1]).all(axis=(1, 2, 3))
    assert (flipped | (out == x).all(axis=(1, 2, 3))).all() and low <= flipped.sum() <= high


@pytest.mark.parametrize(("size", "fill"), [(1, 0), (2, 0), (3, 7), (4, 0), (50, 3)])
def test_cutout(size, fill):
    x = np.full((300, 2, 6, 7), 99, np.uint8)
    out = Cutout(size, fill)(x, rng())
    centres = set()
    for image in out:
        assert (image[0] == image[1]).all(), "the same square in every channel"
        rows, columns = np.nonzero(image[0] != 99)
        assert (image[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == fill).all()
        assert (image[0] == fill).sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1), "a rectangle"
        assert np.ptp(rows) < size and np.ptp(columns) < size
        centres.add((rows.min(), columns.min()))
    if size == 1:
        assert len(centres) == 42, "centred on any pixel"
    if size == 3:
        assert {4, 6, 9} <= {int((image[0] == fill).sum()) for image in out}, "cut at corners and edges"


def affine_by_loops(x, transform, generator, fill):
    """RandomAffine pixel by pixel, in float64; draws its numbers in the same order."""
    n, c, h, w = x.shape
    angle = np.radians(generator.uniform(*transform.degrees, n))
    scale = generator.uniform(*transform.scale, n)
    dx = generator.uniform(-1, 1, n) * transform.translate[0] * w
    dy = generator.uniform(-1, 1, n) * transform.translate[1] * h
    out = np.empty(x.shape)
    for i, row, column in np.ndindex(n, h, w):
        u, v = column - (w - 1) / 2 - dx[i], row - (h - 1) / 2 - dy[i]
        sx = (math.cos(angle[i]) * u + math.sin(angle[i]) * v) / scale[i] + (w - 1) / 2
        sy = (math.cos(angle[i]) * v - math.sin(angle[i]) * u) / scale[i] + (h - 1) / 2
        total = np.zeros(c)
        for y in (math.floor(sy), math.floor(sy) + 1):
            for z in (math.floor(sx), math.floor(sx) + 1):
                inside = 0 <= y < h and 0 <= z < w
                total += (1 - abs(sy - y)) * (1 - abs(sx - z)) * (x[i, :, y, z] if inside else fill)
        out[i, :, row, column] = total
    return out


@pytest.mark.parametrize("fill", [0, 200])
@pytest.mark.parametrize(
    "transform",
    [
        RandomAffine(0),
        RandomAffine(180),
        RandomAffine((10, 20), translate=(0.5, 1)),
        RandomAffine(45, scale=(0.3, 3)),
        RandomAffine(15, (0.1, 0.1), (0.9, 1.1)),
    ],
)
def test_affine_against_loops(transform, fill):
    transform = RandomAffine(transform.degrees, transform.translate, transform.scale, fill)
    x = images(8, 2, 5, 7, np.float32)
    np.testing.assert_allclose(transform(x, rng(3)), affine_by_loops(x, transform, rng(3), fill), atol=1e-3)
    rounded = transform(x.astype(np.uint8), rng(3)).astype(int)
    np.testing.assert_allclose(rounded, affine_by_loops(x, transform, rng(3), fill), atol=0.501)


def test_affine_turns_clockwise():
    x = images(2, 3, 6, 6)
    np.testing.assert_array_equal(RandomAffine((90, 90))(x, rng()), np.rot90(x, k=-1, axes=(2, 3)))


def test_affine_of_nothing_is_the_image():
    np.testing.assert_array_equal(RandomAffine(0)(images(), rng()), images())


def test_compose_applies_in_order_with_one_generator():
    both = Compose([RandomHorizontalFlip(), Cutout(2)])
    generator = rng()
    wanted = Cutout(2)(RandomHorizontalFlip()(images(), generator), generator)
    np.testing.assert_array_equal(both(images(), rng()), wanted)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Normalize("dark"), TypeError, "mean: got 'dark', wanted a number"),
        (lambda: Normalize([[1]]), ValueError, "mean: got .*wanted a finite number"),
        (lambda: Normalize(math.nan), ValueError, "mean: got nan"),
        (lambda: Normalize(0, [1, 0, 1]), ValueError, r"std: got \[1, 0, 1\], wanted numbers above 0"),
        (lambda: Normalize([1, 2])(images()), ValueError, "x: got 3 channels, wanted 2: mean has one number"),
        (lambda: RandomCrop(0), ValueError, "size: got 0"),
        (lambda: RandomCrop(True), TypeError, "size: got True"),
        (lambda: RandomCrop(3, padding=-1), ValueError, "padding: got -1, wanted an integer >= 0"),
        (lambda: RandomCrop(3, padding_mode="edge"), ValueError, "padding_mode: got 'edge', wanted"),
        (
            lambda: RandomCrop(3, fill=256)(images(), rng()),
            ValueError,
            "fill: got 256, wanted an integer from 0",
        ),
        (lambda: RandomHorizontalFlip(1.5), ValueError, r"p: got 1.5, wanted a finite number in \[0, 1\]"),
        (lambda: RandomHorizontalFlip("x"), TypeError, "p: got 'x'"),
        (lambda: Cutout(2.0), TypeError, r"size: got 2.0 \(float\)"),
        (lambda: Cutout(2, fill=0.5)(images(), rng()), ValueError, "fill: got 0.5"),
        (lambda: RandomAffine(-3), ValueError, "degrees: got -3"),
        (lambda: RandomAffine((3, 2)), ValueError, r"degrees: got \(3, 2\), wanted \(low, high\)"),
        (lambda: RandomAffine(3, translate=0.1), TypeError, "translate: got 0.1, wanted a pair"),
        (lambda: RandomAffine(3, translate=(0.1, 2)), ValueError, "translate: got 2"),
        (lambda: RandomAffine(3, scale=(0, 1)), ValueError, r"scale: got \(0, 1\), wanted factors above 0"),
        (lambda: RandomAffine(3, fill=math.inf), ValueError, "fill: got inf"),
        (lambda: Compose([Normalize(), 3]), TypeError, r"transforms\[1\]: got int, wanted a function"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
