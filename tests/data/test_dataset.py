import numpy as np
import pytest

from pycnn.data import ArrayDataset


def images(n=6, c=3, h=4, w=5, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, (n, c, h, w)).astype(dtype)


def is_channels_last(x):
    return x.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_kept_channels_last_with_their_values(dtype):
    x = images(dtype=dtype)
    dataset = ArrayDataset(x, np.arange(6))
    assert dataset.x.dtype == dtype and is_channels_last(dataset.x)
    np.testing.assert_array_equal(dataset.x, x)


def test_channels_last_images_are_not_copied():
    x = np.zeros((6, 4, 5, 3), np.uint8).transpose(0, 3, 1, 2)
    assert np.shares_memory(ArrayDataset(x, np.arange(6)).x, x)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_labels_become_int64(dtype):
    dataset = ArrayDataset(images(), np.arange(6, dtype=dtype))
    assert dataset.y.dtype == np.int64 and dataset.y.tolist() == [0, 1, 2, 3, 4, 5]


def test_classes():
    dataset = ArrayDataset(images(), [0, 1, 0, 1, 2, 0])
    assert dataset.num_classes == 3 and dataset.classes == ("0", "1", "2")
    dataset = ArrayDataset(images(), [0, 1, 0, 1, 1, 0], classes=["cat", "dog", "owl"])
    assert dataset.num_classes == 3 and dataset.classes == ("cat", "dog", "owl")


def test_length_and_items():
    x = images()
    dataset = ArrayDataset(x, [5, 4, 3, 2, 1, 0], classes="abcdef")
    assert len(dataset) == 6
    image, label = dataset[-2]
    np.testing.assert_array_equal(image, x[4])
    assert label == 1
    assert [int(label) for _, label in dataset] == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    "index", [slice(1, 5, 2), slice(None, None, -1), [4, 0, 4], np.array([True, False] * 3), slice(0, 0)]
)
def test_a_selection_is_a_dataset_with_the_same_classes(index):
    x, y = images(), np.arange(6)
    part = ArrayDataset(x, y)[index]
    assert isinstance(part, ArrayDataset) and is_channels_last(part.x) and part.num_classes == 6
    np.testing.assert_array_equal(part.x, x[index])
    np.testing.assert_array_equal(part.y, y[index])


def test_targets_per_pixel_with_ignored_ones():
    y = np.full((6, 4, 5), -100)
    y[0, 0, 0] = 2
    dataset = ArrayDataset(images(), y)
    assert dataset.num_classes == 3 and dataset.y.shape == (6, 4, 5)


def test_float_targets_are_kept():
    dataset = ArrayDataset(images(), np.ones((6, 2), np.float32))
    assert dataset.y.dtype == np.float32 and dataset.num_classes == 0


def test_empty():
    dataset = ArrayDataset(images(n=0), np.zeros(0, int))
    assert len(dataset) == 0 and dataset.num_classes == 0


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ([1, 2], [0, 1], TypeError, "x: got list, wanted a NumPy array"),
        (images(dtype=np.float64), range(6), TypeError, "x: got dtype float64, wanted uint8 or float32"),
        (images(dtype=np.int64), range(6), TypeError, "x: got dtype int64"),
        (
            images()[0],
            range(3),
            ValueError,
            r"x: got shape \(3, 4, 5\), wanted \(n, channels, height, width\)",
        ),
        (images(), np.zeros(6), TypeError, "y: got dtype float64, wanted integers"),
        (images(), np.full(6, np.nan), TypeError, "y: got dtype float64"),
        (images(), np.zeros(6, bool), TypeError, "y: got dtype bool"),
        (images(), range(5), ValueError, r"y: got shape \(5,\), wanted \(6, ...\)"),
        (images(), np.int64(3), ValueError, r"y: got shape \(\)"),
        (images(), [0, 1, 2, -1, 0, 0], ValueError, "y: got class number -1, wanted 0 or above"),
        (
            images(),
            np.full(6, 2**64 - 100, np.uint64),
            ValueError,
            "y: got class number 18446744073709551516",
        ),
    ],
)
def test_bad_arguments(x, y, error, message):
    with pytest.raises(error, match=message):
        ArrayDataset(x, y)


def test_a_class_number_without_a_name():
    with pytest.raises(ValueError, match="y: got class number 5, wanted below 2"):
        ArrayDataset(images(), range(6), classes=["a", "b"])
