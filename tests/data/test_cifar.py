import importlib

import numpy as np
import pytest

from pycnn.data import cifar10
from pycnn.errors import FormatError

module = importlib.import_module("pycnn.data.cifar")
N = 20
NAMES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """Small binary batches: their folder, and file name -> (images (n, 3, 32, 32), labels (n,))."""
    monkeypatch.setattr(module, "_IMAGES_PER_FILE", N)
    rng = np.random.default_rng(0)
    content = {}
    for name in NAMES:
        x, y = rng.integers(0, 256, (N, 3, 32, 32), np.uint8), rng.integers(0, 10, N, np.uint8)
        records = np.concatenate([y[:, None], x.reshape(N, -1)], axis=1)
        (tmp_path / name).write_bytes(records.tobytes())
        content[name] = x, y
    return tmp_path, content


def check(splits, content):
    train, test = splits
    np.testing.assert_array_equal(train.x, np.concatenate([content[name][0] for name in NAMES[:5]]))
    np.testing.assert_array_equal(train.y, np.concatenate([content[name][1] for name in NAMES[:5]]))
    np.testing.assert_array_equal(test.x, content["test_batch.bin"][0])
    np.testing.assert_array_equal(test.y, content["test_batch.bin"][1])
    assert train.classes == test.classes == module.CLASSES and train.x.dtype == np.uint8
    assert train.x.transpose(0, 2, 3, 1).flags.c_contiguous


def test_binary_batches(batches):
    root, content = batches
    check(cifar10(str(root)), content)


def test_root_may_hold_the_unpacked_archive(batches, tmp_path):
    root, content = batches
    (root / "cifar-10-batches-bin").mkdir()
    for name in NAMES:
        (root / name).rename(root / "cifar-10-batches-bin" / name)
    check(cifar10(root), content)


@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:-3073], lambda b: b""]
)
@pytest.mark.parametrize("name", ["data_batch_3.bin", "test_batch.bin"])
def test_wrong_length(batches, name, change):
    path = batches[0] / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FormatError, match=f"{name}: {path.stat().st_size} bytes, wanted {N * 3073}"):
        cifar10(batches[0])


def test_label_out_of_range(batches):
    path = batches[0] / "data_batch_2.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(FormatError, match=r"data_batch_2.bin: label 10, wanted 0 to 9"):
        cifar10(batches[0])


def test_missing_batch(batches):
    (batches[0] / "data_batch_5.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_5.bin"):
        cifar10(batches[0])


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root: no test_batch.bin, .* only the binary version"):
        cifar10(tmp_path)


def write_folder(root, classes, size=(32, 32)):
    image_module = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for part, n in (("train", 2), ("test", 1)):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (*size, 3), np.uint8)
                image_module.fromarray(pixels).save(root / part / name / f"{i}.png")


def test_image_folder(tmp_path):
    write_folder(tmp_path, module.CLASSES)
    train, test = cifar10(tmp_path)
    assert train.x.shape == (20, 3, 32, 32) and test.x.shape == (10, 3, 32, 32)
    assert train.y.tolist() == [i // 2 for i in range(20)] and train.classes == module.CLASSES


def test_image_folder_of_other_classes(tmp_path):
    write_folder(tmp_path, ["cat", "dog"])
    with pytest.raises(FormatError, match="train: classes cat dog, wanted airplane automobile"):
        cifar10(tmp_path)


def test_image_folder_of_another_size(tmp_path):
    write_folder(tmp_path, module.CLASSES, (32, 31))
    with pytest.raises(FormatError, match=r"images of shape \(3, 32, 31\), wanted \(3, 32, 32\)"):
        cifar10(tmp_path)
