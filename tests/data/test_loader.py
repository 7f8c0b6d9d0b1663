import threading
import time

import numpy as np
import pytest

from pycnn.data import (
    ArrayDataset,
    Compose,
    DataLoader,
    ImageFolder,
    Normalize,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
)

N = 23
AUGMENT = Compose([RandomCrop(4, padding=1), RandomHorizontalFlip(), RandomAffine(10), Normalize(0.5, 0.2)])


def dataset(n=N, dtype=np.uint8):
    """Image i has the value i everywhere, and the label i."""
    x = np.broadcast_to(np.arange(n, dtype=dtype)[:, None, None, None], (n, 3, 4, 5))
    return ArrayDataset(x, np.arange(n))


def labels(loader):
    return [y.tolist() for _, y in loader]


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pycnn-data")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert threads() == []


@pytest.mark.parametrize("prefetch", [0, 1, 2, 50])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_batches(dtype, prefetch):
    batches = list(DataLoader(dataset(dtype=dtype), 10, prefetch=prefetch))
    assert [len(y) for _, y in batches] == [10, 10, 3]
    for x, y in batches:
        assert x.dtype == np.float32 and y.dtype == np.int64 and x.shape[1:] == (3, 4, 5)
        assert x.transpose(0, 2, 3, 1).flags.c_contiguous
        full = np.float32(255 if dtype == np.uint8 else 1)
        np.testing.assert_array_equal(
            x, np.broadcast_to(y.astype(np.float32)[:, None, None, None] / full, x.shape)
        )
    assert np.concatenate([y for _, y in batches]).tolist() == list(range(N))


@pytest.mark.parametrize(
    ("n", "batch_size", "drop_last", "sizes"),
    [
        (23, 10, False, [10, 10, 3]),
        (23, 10, True, [10, 10]),
        (20, 10, False, [10, 10]),
        (20, 10, True, [10, 10]),
        (3, 10, False, [3]),
        (3, 10, True, []),
        (0, 10, False, []),
        (2, 1, True, [1, 1]),
    ],
)
def test_length(n, batch_size, drop_last, sizes):
    loader = DataLoader(dataset(n), batch_size, drop_last=drop_last)
    assert len(loader) == len(sizes) and [len(y) for y in labels(loader)] == sizes


def test_a_pair_of_arrays():
    x = np.zeros((5, 1, 2, 2), np.float32)
    assert labels(DataLoader((x, np.arange(5)), 2)) == [[0, 1], [2, 3], [4]]


def test_any_data_set_of_pairs():
    pairs = [(np.full((1, 2, 2), i, np.uint8), i) for i in range(5)]
    batches = list(DataLoader(pairs, 2, shuffle=True))
    assert sorted(y for _, labels in batches for y in labels.tolist()) == [0, 1, 2, 3, 4]
    for x, y in batches:
        np.testing.assert_array_equal(x[:, 0, 0, 0], y.astype(np.float32) / 255)


def test_image_folder(tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    for i in range(6):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        image_module.fromarray(np.full((5, 4, 3), 51 * i, np.uint8)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    (x, y), (x2, y2) = DataLoader(ImageFolder(tmp_path), 4)
    assert x.shape == (4, 3, 5, 4) and x.dtype == np.float32 and x.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_allclose(x[:, 0, 0, 0], [0, 0.4, 0.8, 0.2], rtol=1e-6)
    np.testing.assert_allclose(x2[:, 0, 0, 0], [0.6, 1], rtol=1e-6)
    assert y.tolist() == [0, 0, 0, 1] and y2.tolist() == [1, 1]


def test_float_targets():
    targets = np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2)
    ((_, y),) = DataLoader((np.zeros((3, 1, 2, 2), np.uint8), targets), 3)
    np.testing.assert_array_equal(y, targets, strict=True)


def test_shuffled_epochs_are_permutations_that_differ():
    loader = DataLoader(dataset(), 10, shuffle=True)
    epochs = [[y for batch in labels(loader) for y in batch] for _ in range(3)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def equal(first, second):
    return all(
        np.array_equal(a, b) for pair in zip(first, second, strict=True) for a, b in zip(*pair, strict=True)
    )


@pytest.mark.parametrize("prefetch", [0, 1, 7])
def test_batches_follow_from_the_seed_alone(prefetch):
    one = DataLoader(dataset(), 5, shuffle=True, transform=AUGMENT, seed=4)
    two = DataLoader(dataset(), 5, shuffle=True, transform=AUGMENT, seed=4, prefetch=prefetch)
    other = DataLoader(dataset(), 5, shuffle=True, transform=AUGMENT, seed=5)
    for _ in range(2):
        epoch = list(one)
        assert equal(epoch, list(two)) and not equal(epoch, list(other))


def test_augmentation_differs_between_epochs_and_batches():
    x = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8), np.uint8).repeat(8, axis=0)
    loader = DataLoader((x, np.zeros(8, int)), 4, transform=RandomAffine(30))
    (a, b), (c, _) = [x for x, _ in loader], [x for x, _ in loader]
    assert (a != b).any() and (a != c).any()


def test_set_epoch():
    whole = DataLoader(dataset(), 5, shuffle=True, transform=AUGMENT)
    epochs = [list(whole) for _ in range(3)]
    resumed = DataLoader(dataset(), 5, shuffle=True, transform=AUGMENT)
    resumed.set_epoch(2)
    assert equal(epochs[2], list(resumed))
    resumed.set_epoch(1)
    assert equal(epochs[1], list(resumed)) and equal(epochs[2], list(resumed))


def test_an_epoch_begun_counts():
    loader = DataLoader(dataset(), 5, shuffle=True)
    fresh = DataLoader(dataset(), 5, shuffle=True)
    next(iter(loader))
    first, second = labels(fresh), labels(fresh)
    assert labels(loader) == second != first


def test_two_iterations_at_once():
    loader, fresh = DataLoader(dataset(), 5, shuffle=True), DataLoader(dataset(), 5, shuffle=True)
    expected = [labels(fresh), labels(fresh)]
    got = [[], []]
    for (_, y0), (_, y1) in zip(iter(loader), iter(loader), strict=True):
        got[0].append(y0.tolist())
        got[1].append(y1.tolist())
    assert got == expected


class Counter:
    """A transform that counts its calls, and raises at one of them."""

    def __init__(self, fails_at=None):
        self.calls, self.fails_at, self.threads = 0, fails_at, set()

    def __call__(self, x, rng):
        self.calls += 1
        self.threads.add(threading.current_thread())
        if self.calls == self.fails_at:
            raise OSError("the disk is on fire")
        return x


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition()


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_batches_are_prepared_ahead_but_no_further(prefetch):
    counter = Counter()
    batches = iter(DataLoader(dataset(), 1, transform=counter, prefetch=prefetch))
    next(batches)
    wait_until(lambda: counter.calls == 1 + prefetch)
    time.sleep(0.02)
    assert counter.calls == 1 + prefetch
    assert threading.current_thread() not in counter.threads and len(counter.threads) == 1
    batches.close()


def test_without_prefetch_there_is_no_thread():
    counter = Counter()
    batches = iter(DataLoader(dataset(), 1, transform=counter, prefetch=0))
    next(batches)
    assert counter.calls == 1 and counter.threads == {threading.current_thread()} and threads() == []


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_exception_is_raised_where_its_batch_is_asked_for(prefetch):
    loader = DataLoader(dataset(), 5, transform=Counter(fails_at=3), prefetch=prefetch)
    got = []
    with pytest.raises(OSError, match="the disk is on fire"):
        for _, y in loader:
            got.append(len(y))
    assert got == [5, 5]
    assert len(labels(loader)) == 5, "the loader is usable again"


def test_leaving_early_ends_the_thread():
    loader = DataLoader(dataset(), 1)
    for _ in range(3):
        for _batch in loader:
            assert len(threads()) == 1
            break
        assert threads() == []


def test_leaving_early_drops_what_was_not_begun():
    begun, leave = threading.Event(), threading.Event()

    def wait(x, rng):
        if x[0, 0, 0, 0] > 0:  # every batch but the first
            begun.set()
            calls.append(1)
            assert leave.wait(20)
        return x

    calls = []
    batches = iter(DataLoader(dataset(), 1, transform=wait, prefetch=5))
    next(batches)
    assert begun.wait(20)
    threading.Timer(0.3, leave.set).start()  # by then close() has dropped the rest
    batches.close()
    assert len(calls) == 1


def test_an_exception_in_the_loop_ends_the_thread():
    def train():
        for _batch in DataLoader(dataset(), 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        train()
    assert caught.traceback  # which holds the loop's frame, and with it the iterator
    del caught


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (lambda x, rng: x[:1], ValueError, "transform's result: got 1 images, wanted 5"),
        (lambda x, rng: x.astype(float), TypeError, "transform's result: got dtype float64"),
        (lambda x, rng: x[:, 0], ValueError, r"transform's result: got shape \(5, 4, 5\)"),
        (lambda x, rng: None, TypeError, "transform's result: got NoneType"),
    ],
)
def test_bad_transforms(transform, error, message):
    with pytest.raises(error, match=message):
        list(DataLoader(dataset(), 5, transform=transform))


def test_images_of_different_shapes():
    pairs = [(np.zeros((1, 2, 2), np.uint8), 0), (np.zeros((1, 2, 3), np.uint8), 0)]
    with pytest.raises(ValueError, match=r"images of shapes \(1, 2, 2\), \(1, 2, 3\) in one batch"):
        list(DataLoader(pairs, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size: got 0, wanted an integer >= 1"),
        ({"batch_size": 2.0}, TypeError, r"batch_size: got 2.0 \(float\)"),
        ({"seed": -1}, ValueError, "seed: got -1"),
        ({"prefetch": -1}, ValueError, "prefetch: got -1"),
        ({"transform": 3}, TypeError, "transform: got int, wanted a function"),
        ({"dataset": 3}, TypeError, "dataset: got int, wanted a data set or a pair"),
        ({"dataset": (1, 2, 3)}, TypeError, "dataset: got a tuple of 3, wanted a pair"),
        ({"dataset": (np.zeros((2, 1, 2, 2), np.uint8), [0])}, ValueError, r"y: got shape \(1,\)"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        DataLoader(**{"dataset": dataset(), **arguments})
    with pytest.raises(ValueError, match="epoch: got -1"):
        DataLoader(dataset()).set_epoch(-1)
