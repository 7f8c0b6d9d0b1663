"""L1, L2 and elastic net: the penalty, what it covers, and what it does to a training step."""

import numpy as np
import pytest

import pycnn
from helpers import DTYPES, as_double, assert_close, in_dtype, normal, randomize
from pycnn import losses, nn, optim, regularizers
from reference import linear
from reference import losses as loss_oracle
from reference import regularizers as oracle

TOLERANCE = 1e-5


def network():
    return randomize(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.PReLU(),
            nn.Flatten(),
            nn.Linear(3 * 4 * 4, 5),
        )
    )


REGULARIZERS = [
    (regularizers.L1(0.3), lambda w: oracle.l1_penalty(w, 0.3), lambda w: oracle.l1_gradient(w, 0.3)),
    (regularizers.L2(0.3), lambda w: oracle.l2_penalty(w, 0.3), lambda w: oracle.l2_gradient(w, 0.3)),
    (
        regularizers.ElasticNet(0.3, 0.2),
        lambda w: oracle.elastic_net_penalty(w, 0.3, 0.2),
        lambda w: oracle.elastic_net_gradient(w, 0.3, 0.2),
    ),
]
every_regularizer = pytest.mark.parametrize(
    ("regularizer", "penalty", "gradient"), REGULARIZERS, ids=["L1", "L2", "ElasticNet"]
)


@every_regularizer
@pytest.mark.parametrize("dtype", DTYPES)
def test_penalty_covers_the_weights_of_convolutions_and_linear_layers(regularizer, penalty, gradient, dtype):
    """Biases, normalization and activation slopes go free."""
    model = in_dtype(network(), dtype)
    want = sum(penalty(as_double(layer.weight.data)) for layer in (model[0], model[4]))
    value = regularizer.penalty(model)
    assert isinstance(value, float)
    assert value == pytest.approx(want, rel=TOLERANCE)


def trained_one_step(regularizer, lr=0.1):
    """A linear model after one step of SGD. Returns the new weight and bias, the old ones, and the loss's
    gradients.
    """
    model = nn.Sequential(nn.Linear(6, 4))
    layer = model[0]
    randomize(layer)
    layer.weight.data[0, 0] = 0  # where |w| has its kink
    weight, bias = as_double(layer.weight.data), as_double(layer.bias.data)
    x, target = normal((8, 6)), normal((8, 4), seed=1)

    dy = loss_oracle.mse_backward(linear.linear_forward(as_double(x), weight, bias), as_double(target))
    _, dweight, dbias = linear.linear_backward(dy, as_double(x), weight)

    optimizer = optim.SGD(model.parameters(), lr=lr)
    pycnn.Trainer(model, loss=losses.MSELoss(), optimizer=optimizer, regularizer=regularizer).step(x, target)
    return (layer.weight.data, layer.bias.data), (weight, bias), (dweight, dbias)


@every_regularizer
def test_gradient_enters_the_training_step(regularizer, penalty, gradient):
    (weight, bias), (old_weight, old_bias), (dweight, dbias) = trained_one_step(regularizer)
    assert_close(weight, old_weight - 0.1 * (dweight + gradient(old_weight)), TOLERANCE)
    assert_close(bias, old_bias - 0.1 * dbias, TOLERANCE)


def test_proximal_l1_lands_on_zero():
    """The loss's gradient step first, then the soft threshold by lr * strength."""
    (weight, bias), (old_weight, old_bias), (dweight, dbias) = trained_one_step(
        regularizers.L1(4.0, proximal=True)
    )
    want = oracle.l1_proximal(old_weight - 0.1 * dweight, strength=4.0, lr=0.1)
    assert_close(weight, want, TOLERANCE)
    np.testing.assert_array_equal(weight == 0, want == 0)
    assert (weight == 0).any() and (weight != 0).any()
    assert_close(bias, old_bias - 0.1 * dbias, TOLERANCE)
