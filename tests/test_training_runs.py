"""Whole training runs on the bundled digits."""

import numpy as np
import pytest

import pycnn
from pycnn import data, losses, models, nn, optim, regularizers


@pytest.fixture(scope="module")
def digits():
    train, _ = data.mnist5k()
    return (train.x[:600] / np.float32(255)), train.y[:600]


@pytest.fixture
def threads():
    before = pycnn.get_num_threads()
    yield pycnn.set_num_threads
    pycnn.set_num_threads(before)


def run(model, digits, epochs=1, regularizer=None, lr=0.05, momentum=0.9):
    optimizer = optim.SGD(model.parameters(), lr, momentum)
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optimizer, regularizer)
    return trainer.fit(*digits, epochs=epochs, batch_size=50, progress=False, seed=3)


def test_a_run_has_the_same_bits_at_one_and_two_threads(digits, threads):
    """With batch normalization, dropout, momentum and a penalty."""
    results = []
    for count in (1, 2):
        threads(count)
        pycnn.manual_seed(0)
        model = models.digits_cnn()
        history = run(model, digits, regularizer=regularizers.L2(1e-4))
        results.append((history["loss"], model.state_dict()))
    assert results[0][0] == results[1][0]
    for name, value in results[0][1].items():
        np.testing.assert_array_equal(results[1][1][name], value, err_msg=name)


def test_folding_keeps_the_outputs_of_a_trained_network(digits):
    pycnn.manual_seed(0)
    model = models.digits_cnn()
    losses_of_epochs = run(model, digits, epochs=2)["loss"]
    assert losses_of_epochs[1] < 0.7 * losses_of_epochs[0]
    x = digits[0][:100]
    y = model.eval()(x)
    for folded in (pycnn.fold_batchnorm(model), pycnn.compile(model, x.shape)):
        assert np.abs(folded(x) - y).max() <= 1e-4 * np.abs(y).max()


def test_l1_makes_weights_exactly_zero_and_l2_does_not(digits):
    """Both in the plan; L1 by its proximal step, and not by its subgradient alone."""
    zeros = {}
    for name, regularizer in {
        "L1": regularizers.L1(3e-3, proximal=True),
        "subgradient": regularizers.L1(3e-3),
        "L2": regularizers.L2(3e-3),
    }.items():
        pycnn.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(288, 10))
        history = run(model, digits, epochs=15, regularizer=regularizer, lr=0.2, momentum=0.0)
        assert history["accuracy"][-1] > 0.85
        zeros[name] = np.mean(model[4].weight.data == 0)
    assert zeros["L1"] > 0.4
    assert zeros["subgradient"] == zeros["L2"] == 0
