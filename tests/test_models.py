"""The networks of pycnn.models: their size, what they take, and that they learn."""

import numpy as np
import pytest

import pycnn
from helpers import normal, raises
from pycnn import losses, models, optim

# name, parameters, MACs of one grey image of 28 x 28 for ten classes
SIZES = {
    "lenet5": (61_706, 25 * 6 * 784 + 25 * 6 * 16 * 100 + 400 * 120 + 120 * 84 + 84 * 10),
    "digits_cnn": (
        97_066,
        25 * 32 * 784 + 9 * 32 * 32 * 196 + 9 * 32 * 64 * 196 + 9 * 64 * 64 * 49 + 64 * 49 * 10,
    ),
}
every_model = pytest.mark.parametrize("name", SIZES)


def test_create_knows_all_of_them():
    assert models.names() == sorted(SIZES)
    for name in SIZES:
        assert type(models.create(name)) is type(getattr(models, name)())
    with raises(ValueError, "name", "alexnet", "lenet5", "digits_cnn"):
        models.create("alexnet")


@every_model
def test_size(name):
    model = getattr(models, name)()
    parameters, macs = SIZES[name]
    assert model.num_parameters == parameters
    assert model.macs((1, 28, 28)) == macs


@every_model
def test_classes_and_channels(name):
    model = getattr(models, name)(num_classes=7, in_channels=3)
    assert model(normal((2, 3, 28, 28))).shape == (2, 7)
    with raises(ValueError, "x"):
        model(normal((2, 1, 28, 28)))
    with raises(ValueError, "in_channels", "0"):
        getattr(models, name)(in_channels=0)


@every_model
def test_state_goes_over(name):
    pycnn.manual_seed(1)
    first, second = getattr(models, name)(), getattr(models, name)()
    second.load_state_dict(first.state_dict())
    x = normal((3, 1, 28, 28))
    np.testing.assert_array_equal(first.eval()(x), second.eval()(x))


def test_seed_decides_the_weights():
    pycnn.manual_seed(5)
    first = models.digits_cnn().state_dict()
    pycnn.manual_seed(5)
    for name, value in models.digits_cnn().state_dict().items():
        np.testing.assert_array_equal(value, first[name])


def test_lenet_is_for_28_by_28():
    with raises(ValueError, "x", "(1, 1, 32, 32)", "28"):
        models.lenet5()(normal((1, 1, 32, 32)))


@pytest.mark.parametrize("size", [(4, 4), (32, 32), (33, 47)])
def test_digits_cnn_takes_other_sizes(size):
    assert models.digits_cnn()(normal((2, 1, *size))).shape == (2, 10)


@every_model
def test_learns_real_digits(name):
    """Far from done after two passes over 1,000 digits, and far from chance."""
    train, test = pycnn.data.mnist5k()
    pycnn.manual_seed(0)
    model = getattr(models, name)()
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optim.AdamW(model.parameters(), 3e-3))
    trainer.fit(train[::4], epochs=2, batch_size=32, progress=False)
    assert trainer.evaluate(test[::4])["accuracy"] > 0.8
