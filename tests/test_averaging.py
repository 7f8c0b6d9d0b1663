"""Moving averages of weights."""

import numpy as np
import pytest

import pycnn
from pycnn import losses, nn, optim


def network():
    pycnn.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 4, 3))


def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, 1, 6, 6), dtype=np.float32), rng.integers(0, 3, 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_follows_the_formula(dtype):
    model = network()
    if dtype == np.float64:
        model.double()
    x, y = batch()
    average = optim.WeightAverage(model.parameters(), decay=0.9)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optimizer, average=average)
    wanted = [p.data.astype(np.float64) for p in model.parameters()]
    for _ in range(5):
        trainer.step(x.astype(dtype), y)
        wanted = [0.9 * a + 0.1 * p.data for a, p in zip(wanted, model.parameters(), strict=True)]
    assert average.updates == 5
    for got, want in zip(average.arrays, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_update_alone_and_applied():
    model = network()
    average = optim.WeightAverage(model.parameters(), decay=0.5)
    before = [p.data.copy() for p in model.parameters()]
    for p in model.parameters():
        p.data[...] += 2.0
    average.update()
    with average.applied():
        for p, old in zip(model.parameters(), before, strict=True):
            np.testing.assert_allclose(p.data, old + 1.0, rtol=1e-6)
    for p, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, old + np.float32(2.0))


def test_survives_a_change_of_type():
    model = network()
    average = optim.WeightAverage(model.parameters(), decay=0.5)
    average.update()
    model.double()
    average.update()
    assert all(array.dtype == np.float64 for array in average.arrays)


def test_bad_arguments():
    model = network()
    with pytest.raises(ValueError, match="decay"):
        optim.WeightAverage(model.parameters(), decay=1.5)
    with pytest.raises(TypeError, match="params"):
        optim.WeightAverage([1, 2])
    with pytest.raises(TypeError, match="average: got int"):
        pycnn.Trainer(model, losses.CrossEntropyLoss(), optim.SGD(model.parameters()), average=3)
