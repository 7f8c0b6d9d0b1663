import subprocess
import sys

import numpy as np
import pytest

from pycnn.data import ImageFolder, read_image
from pycnn.errors import FormatError

Image = pytest.importorskip("PIL.Image")


def pixels(h, w, c=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, c), np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.squeeze()).save(path)
    return path


def ramp(h, w):
    """Red grows by 10 to the right, green by 10 downwards: a pixel tells where it came from."""
    rows, columns = np.mgrid[:h, :w]
    return np.stack([10 * columns, 10 * rows, 0 * rows], axis=-1).astype(np.uint8)


@pytest.fixture
def tree(tmp_path):
    """Two classes, nested folders, and files that are no images."""
    images = {"cat/1.png": 0, "cat/more/2.PNG": 0, "dog/0.png": 1}
    for seed, name in enumerate(images):
        save(tmp_path / name, pixels(6, 8, seed=seed))
    for name in ("readme.txt", "cat/notes.md", "cat/more/.hidden.png", "dog/.thumbs/a.png", ".git/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    return tmp_path


def test_classes_paths_and_labels(tree):
    folder = ImageFolder(str(tree))
    assert folder.classes == ("cat", "dog") and folder.num_classes == 2 and len(folder) == 3
    assert [str(path.relative_to(tree)) for path in folder.paths] == [
        "cat/1.png",
        "cat/more/2.PNG",
        "dog/0.png",
    ]
    assert folder.y.tolist() == [0, 0, 1]


def test_items_are_decoded_on_demand(tree):
    folder = ImageFolder(tree)
    image, label = folder[1]
    assert image.shape == (3, 6, 8) and image.dtype == np.uint8 and label == 0
    np.testing.assert_array_equal(image.transpose(1, 2, 0), pixels(6, 8, seed=1))
    assert folder[-1][1] == 1


def test_arrays(tree):
    dataset = ImageFolder(tree).arrays()
    assert (
        dataset.x.shape == (3, 3, 6, 8)
        and dataset.classes == ("cat", "dog")
        and dataset.y.tolist() == [0, 0, 1]
    )
    assert dataset.x.transpose(0, 2, 3, 1).flags.c_contiguous
    for i in range(3):
        np.testing.assert_array_equal(dataset.x[i].transpose(1, 2, 0), pixels(6, 8, seed=i))


def test_many_images_come_in_order(tmp_path):
    for i in range(100):
        save(tmp_path / "a" / f"{i:03}.png", np.full((2, 2, 3), i, np.uint8))
    assert ImageFolder(tmp_path).arrays().x[:, 0, 0, 0].tolist() == list(range(100))


def test_images_of_different_sizes(tree):
    path = save(tree / "dog" / "9.png", pixels(5, 8))
    with pytest.raises(
        ValueError, match=rf"{path.name}: height and width \(5, 8\) differ from \(6, 8\).*size="
    ):
        ImageFolder(tree).arrays()
    assert ImageFolder(tree, size=4).arrays().x.shape == (4, 3, 4, 4)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_mode(tree, mode, channels):
    assert ImageFolder(tree, mode=mode)[0][0].shape == (channels, 6, 8)
    assert ImageFolder(tree, mode=mode).arrays().x.shape == (3, channels, 6, 8)


def test_grey_files_become_rgb(tmp_path):
    image = read_image(save(tmp_path / "a.png", pixels(4, 5, 1)))
    np.testing.assert_array_equal(image, np.broadcast_to(pixels(4, 5, 1).transpose(2, 0, 1), (3, 4, 5)))


@pytest.mark.parametrize(
    ("size", "rows", "columns"), [(4, slice(0, 4), slice(4, 8)), ((2, 12), slice(1, 3), slice(0, 12))]
)
def test_crop_is_central(tmp_path, size, rows, columns):
    path = save(tmp_path / "a.png", ramp(4, 12))
    np.testing.assert_array_equal(read_image(path, size).transpose(1, 2, 0), ramp(4, 12)[rows, columns])


def test_resize_then_crop(tmp_path):
    path = save(tmp_path / "a.png", ramp(12, 24))
    assert read_image(path, resize=6).shape == (3, 6, 12)
    halved = read_image(path, size=4, resize=6)
    assert halved.shape == (3, 4, 4)
    # Of the halved image (6, 12) the middle: rows 1 to 4, columns 4 to 7; its pixel i averages 2i and 2i + 1.
    np.testing.assert_allclose(halved[0], np.broadcast_to(10 * (2 * np.arange(4, 8) + 0.5), (4, 4)), atol=1)
    np.testing.assert_allclose(halved[1].T, np.broadcast_to(10 * (2 * np.arange(1, 5) + 0.5), (4, 4)), atol=1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (333, 2), (7, 5)])
@pytest.mark.parametrize("size", [1, 3, (2, 7), 50])
def test_any_image_fills_any_size(tmp_path, shape, size):
    path = save(tmp_path / "a.png", np.full((*shape, 3), 9, np.uint8))
    image = read_image(path, size)
    assert image.shape == (3, size, size) if isinstance(size, int) else (3, *size)
    assert (image == 9).all()


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    Image.fromarray(ramp(4, 6)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png").transpose(1, 2, 0), np.rot90(ramp(4, 6), k=-1)
    )


@pytest.mark.parametrize("change", [lambda b: b"", lambda b: b"text", lambda b: b[: len(b) // 2]])
def test_damaged_images(tmp_path, change):
    path = save(tmp_path / "c" / "a.png", pixels(40, 40))
    path.write_bytes(change(path.read_bytes()))
    for decode in (
        lambda: read_image(path),
        lambda: ImageFolder(tmp_path)[0],
        ImageFolder(tmp_path, size=3).arrays,
    ):
        with pytest.raises(FormatError, match=r"a\.png: not an image that Pillow can decode"):
            decode()


def test_sixteen_bits_are_refused_not_clipped(tmp_path):
    path = save(tmp_path / "a.png", np.full((3, 3, 1), 1000, np.uint16))
    with pytest.raises(FormatError, match="wanted 8 bits a channel"):
        read_image(path, mode="L")


def test_bad_paths(tmp_path):
    with pytest.raises(FileNotFoundError):
        ImageFolder(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"path: .* holds no class folders"):
        ImageFolder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"path: class folder .*empty holds no images"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "HSV"}, ValueError, "mode: got 'HSV', wanted one of L, RGB, RGBA"),
        ({"size": 0}, ValueError, "size: got 0, wanted an integer >= 1"),
        ({"size": 2.5}, TypeError, r"size: got 2.5 \(float\), wanted an integer"),
        ({"size": (3, 4, 5)}, TypeError, r"size: got \(3, 4, 5\), wanted a pair"),
        ({"resize": -1}, ValueError, "resize: got -1"),
        ({"size": (3, 9), "resize": 8}, ValueError, "resize: got 8, wanted at least 9"),
    ],
)
def test_bad_arguments(tree, arguments, error, message):
    with pytest.raises(error, match=message):
        ImageFolder(tree, **arguments)
    with pytest.raises(error, match=message):
        read_image(tree / "cat" / "1.png", **arguments)


def test_without_pillow_the_error_says_what_to_install(tree):
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "import pycnn.data\n"
        "try: pycnn.data.ImageFolder(sys.argv[1])[0]\n"
        "except ImportError as error: print(error)"
    )
    # -P: the installed package, not one in the current directory.
    command = [sys.executable, "-P", "-c", code, str(tree)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pip install pycnn[image]" in result.stdout
