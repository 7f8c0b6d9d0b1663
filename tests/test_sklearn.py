"""CNNClassifier as an estimator among scikit-learn's."""

import pickle

import numpy as np
import pytest

import pycnn
from helpers import normal, raises
from pycnn import models, nn

pytest.importorskip("sklearn", "1.6")

from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from pycnn.sklearn import CNNClassifier


@parametrize_with_checks([CNNClassifier()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def digits(count):
    train, test = pycnn.data.mnist5k()
    return train.x[:count], train.y[:count].astype(str), test.x[:250], test.y[:250].astype(str)


def clusters(labels=("a", "b", "c"), count=30):
    """Points about one centre for each label."""
    y = np.repeat(labels, count)
    centres = {label: 4 * normal(5, np.float64, seed) for seed, label in enumerate(labels)}
    return normal((len(y), 5), np.float64, 9) + [centres[label] for label in y], y


def test_images_as_rows_and_as_images():
    x, y, test_x, test_y = digits(1000)
    flat = CNNClassifier("lenet5", (28, 28), epochs=4, random_state=0).fit(x.reshape(len(x), -1), y)
    assert flat.score(test_x.reshape(len(test_x), -1), test_y) > 0.85
    assert flat.n_features_in_ == 784 and list(flat.classes_) == list("0123456789")
    assert flat.mean_.shape == (1,), "by channel"
    shaped = CNNClassifier("lenet5", epochs=4, random_state=0).fit(x, y)
    np.testing.assert_array_equal(shaped.predict_proba(test_x), flat.predict_proba(test_x.reshape(len(test_x), -1)))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (None, models.DigitsCNN),
        ("resnet20_cifar", models.CifarResNet),
        (models.resnet20_cifar, models.CifarResNet),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 2)), nn.Sequential),
    ],
    ids=["default", "name", "function", "module"],
)
def test_what_model_may_be(model, kind):
    x, y = normal((6, 3, 16, 16)), np.array([1, 5] * 3)
    found = CNNClassifier(model, epochs=1, random_state=0).fit(x, y)
    assert isinstance(found.model_, kind)
    assert found.predict_proba(x).shape == (6, 2)
    assert set(found.predict(x)) <= {1, 5}


def test_a_module_is_copied_and_trained_from_its_weights():
    x, y = clusters(("a", "b"))
    module = nn.Linear(5, 2)
    before = module.state_dict()
    found = CNNClassifier(module, epochs=1, learning_rate=1e-9, random_state=0).fit(x, y)
    for name, value in before.items():
        np.testing.assert_array_equal(module.state_dict()[name], value)
        np.testing.assert_allclose(found.model_.state_dict()[name], value, atol=1e-6)


def test_the_seed_decides_and_nothing_else_is_disturbed():
    x, y = clusters()
    pycnn.manual_seed(3)
    expected = nn.Linear(2, 2).weight.data.copy()
    pycnn.manual_seed(3)
    first, again, other = (CNNClassifier(epochs=2, random_state=seed).fit(x, y).predict_proba(x) for seed in (0, 0, 1))
    np.testing.assert_array_equal(nn.Linear(2, 2).weight.data, expected)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_partial_fit_goes_on():
    x, y = clusters()
    found = CNNClassifier(random_state=0)
    with raises(ValueError, "classes", "None"):
        found.partial_fit(x, y)
    scores = []
    for _ in range(15):
        found.partial_fit(x, y, classes=["a", "b", "c"])
        scores.append(found.score(x, y))
    assert scores[-1] > 0.95
    assert found.predict_proba(x).max(1).mean() > 0.8
    with raises(ValueError, "y", "d"):
        found.partial_fit(x[:1], ["d"])
    with raises(ValueError, "classes", "a", "b", "c"):
        found.partial_fit(x, y, classes=["a", "b"])


def test_a_pickled_estimator_goes_on_where_it_was():
    x, y = clusters()
    found = CNNClassifier(random_state=0).partial_fit(x, y, classes=["a", "b", "c"])
    twin = pickle.loads(pickle.dumps(found))
    for _ in range(2):
        np.testing.assert_array_equal(
            found.partial_fit(x, y).predict_proba(x), twin.partial_fit(x, y).predict_proba(x)
        )


def test_among_scikit_learns_tools():
    x, y = clusters()
    assert cross_val_score(CNNClassifier(random_state=0), x, y, cv=3).mean() > 0.95
    assert clone(CNNClassifier("lenet5", (28, 28), epochs=3)).get_params()["epochs"] == 3


def test_refusals():
    x, y = normal((6, 48)), np.array([0, 1] * 3)
    with raises(ValueError, "image_shape", "48", "28"):
        CNNClassifier(image_shape=(28, 28)).fit(x, y)
    with raises(ValueError, "image_shape", "None", "lenet5"):
        CNNClassifier("lenet5").fit(x, y)
    with raises(ValueError, "name", "alexnet"):
        CNNClassifier("alexnet", (3, 4, 4)).fit(x, y)
    with raises(TypeError, "model", "int"):
        CNNClassifier(3, (3, 4, 4)).fit(x, y)
    with raises(TypeError, "model", "str"):
        CNNClassifier(lambda num_classes, in_channels: "net", (3, 4, 4)).fit(x, y)
    with raises(ValueError, "model", "(1, 7)", "(1, 2)"):
        CNNClassifier(nn.Linear(48, 7)).fit(x, y)
    with raises(ValueError, "epochs", "0"):
        CNNClassifier(epochs=0).fit(x, y)
    found = CNNClassifier(epochs=1).fit(x.reshape(6, 3, 4, 4), y)
    with raises(ValueError, "X", "(3, 2, 8)", "(3, 4, 4)"):
        found.predict(x.reshape(6, 3, 2, 8))
