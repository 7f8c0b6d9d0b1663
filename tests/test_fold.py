"""Batch normalization folded away: the same outputs in evaluation mode, and none of it left."""

import numpy as np
import pytest

import pycnn
from helpers import assert_close, normal, raises, randomize
from pycnn import functional as F
from pycnn import losses, models, nn, optim


def kinds(model):
    return [type(module).__name__ for module in model.modules()]


def with_history(model, shape, seed=0):
    """Weights, and running statistics that forward passes in training left."""
    randomize(model, seed)
    for number in range(2):
        model.train()(3 * normal(shape, seed=number) + 1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += normal(module.num_features, seed=seed)
    return model.eval()


def check(model, shape, folds, input_shape=None):
    """Same outputs; `folds` normalizations went into a layer, the others became depthwise convolutions."""
    with_history(model, shape)
    before = model.state_dict()
    norms = kinds(model).count("BatchNorm2d")
    folded = pycnn.fold_batchnorm(model, input_shape)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert kinds(model).count("BatchNorm2d") == norms, "the model stays as it is"
    assert "BatchNorm2d" not in kinds(folded)
    assert kinds(folded).count("Identity") == folds
    assert kinds(folded).count("Conv2d") == kinds(model).count("Conv2d") + norms - folds
    x = normal(shape, seed=7)
    assert_close(folded(x), model(x), 1e-5)
    model.double()
    assert_close(folded.double()(x.astype(np.float64)), model(x.astype(np.float64)), 1e-5)
    return folded


LAYERS = {
    "convolution": (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 5)),
    "groups, no bias": (lambda: nn.Conv2d(4, 6, 3, stride=2, groups=2, bias=False), (2, 4, 7, 7)),
    "depthwise": (lambda: nn.Conv2d(3, 6, 3, groups=3), (2, 3, 5, 5)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, bias=False), (2, 4, 4, 5)),
    "transposed, groups": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (2, 4, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("affine", [True, False])
def test_layer(name, affine):
    make, shape = LAYERS[name]
    folded = check(nn.Sequential(make(), nn.BatchNorm2d(6, eps=0.1, affine=affine), nn.Tanh()), shape, folds=1)
    assert [*folded[0]._parameters] == ["weight", "bias"]
    assert folded.state_dict().keys() == {"0.weight", "0.bias"}


class Joined(nn.Module):
    """Normalization in all positions."""

    def __init__(self):
        super().__init__()
        self.before = nn.BatchNorm2d(3)
        self.declared_first = nn.BatchNorm2d(4)  # runs after conv: the order of calls counts
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.read_twice = nn.Conv2d(4, 4, 1)
        self.after_read_twice = nn.BatchNorm2d(4)
        self.called_twice = nn.Conv2d(4, 4, 1)
        self.after_called_twice = nn.BatchNorm2d(4)
        self.activated = nn.Conv2d(4, 4, 1)
        self.after_activation = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 5)
        self.after_linear = nn.BatchNorm2d(5)
        self.unused = nn.BatchNorm2d(2)

    def forward(self, x):
        x = F.relu(self.declared_first(self.conv(self.before(x))))
        y = self.read_twice(x)
        x = self.after_read_twice(y) * y
        x = self.after_called_twice(self.called_twice(x)) + self.called_twice(x)
        x = self.after_activation(F.relu(self.activated(x)))
        x = self.linear(F.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return self.after_linear(x.reshape(*x.shape, 1, 1)), y


def test_the_graph_decides():
    model = Joined()
    with_history(model, (3, 3, 6, 6))
    folded = pycnn.fold_batchnorm(model)
    assert "BatchNorm2d" not in kinds(folded)
    replaced = {name for name, module in folded.named_children() if isinstance(module, nn.Identity)}
    assert replaced == {"declared_first", "after_linear"}
    x = normal((2, 3, 9, 9), seed=7)
    for got, want in zip(folded(x), model(x), strict=True):
        assert_close(got, want, 1e-5)


def test_a_result_that_is_an_output_stays():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return x, self.norm(x)

    model = with_history(Both(), (2, 3, 4, 4))
    folded = pycnn.fold_batchnorm(model)
    x = normal((2, 3, 4, 4), seed=5)
    np.testing.assert_array_equal(folded(x)[0], model(x)[0])
    assert_close(folded(x)[1], model(x)[1], 1e-6)


def test_alone_and_shared():
    check(nn.BatchNorm2d(3), (2, 3, 4, 4), folds=0)
    norm = nn.BatchNorm2d(3)
    check(nn.Sequential(nn.Conv2d(3, 3, 1), norm, nn.ReLU(), nn.Conv2d(3, 3, 1), norm), (2, 3, 4, 4), folds=0)
    plain = nn.Sequential(nn.Conv2d(3, 3, 1))
    assert kinds(pycnn.fold_batchnorm(plain)) == kinds(plain)


def test_the_shape_is_found_told_or_not_needed():
    def network():
        return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 4 * 7, 5))

    fresh = network()
    assert kinds(pycnn.fold_batchnorm(fresh)).count("Identity") == 0, "no square image fits, and it was never called"
    assert "BatchNorm2d" not in kinds(pycnn.fold_batchnorm(fresh))
    assert kinds(pycnn.fold_batchnorm(fresh, (2, 6, 9))).count("Identity") == 1
    with raises(ValueError, "6", "12"):
        pycnn.fold_batchnorm(fresh, (2, 6, 12, 1, 1))
    check(network(), (2, 2, 6, 9), folds=1)  # called before
    check(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(75, 5)), (2, 2, 7, 7), folds=1)
    check(models.digits_cnn(), (2, 1, 28, 28), folds=4)


@pytest.mark.parametrize(
    ("make", "folds"),
    [(models.resnet20_cifar, 19), (lambda: models.mobilenet_v2(10), 52), (lambda: models.unet(2, 3, 4), 18)],
    ids=["resnet20_cifar", "mobilenet_v2", "unet"],
)
def test_networks(make, folds):
    """Every normalization of the classic networks follows a convolution. Within 1e-4 after training."""
    pycnn.manual_seed(0)
    model = make()
    x = normal((8, 3, 32, 32))
    targets = np.arange(8) % 2 if folds != 18 else (x[:, 0] > 0).astype(np.int64)
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.01, momentum=0.9))
    for _ in range(10):
        trainer.step(x, targets)
    folded = pycnn.fold_batchnorm(model.eval())
    assert "BatchNorm2d" not in kinds(folded) and kinds(folded).count("Identity") == folds
    assert kinds(folded).count("Conv2d") == kinds(model).count("Conv2d")
    x = normal((2, 3, 32, 32), seed=1)
    y = model(x)
    assert np.abs(folded(x) - y).max() <= 1e-4 * np.abs(y).max()


def test_frozen_layers_stay_frozen_and_modes_are_kept():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.BatchNorm2d(3))
    model[0].requires_grad_(False)
    folded = pycnn.fold_batchnorm(model)
    assert [p.requires_grad for p in folded[0].parameters()] == [False, False]
    assert all(module.training for module in folded.modules()) and all(module.training for module in model.modules())
    assert not any(module.training for module in pycnn.fold_batchnorm(model.eval()).modules())


def test_refusals():
    with raises(TypeError, "model", "str"):
        pycnn.fold_batchnorm("resnet18")
    with raises(ValueError, "model", "1", "track_running_stats=False"):
        pycnn.fold_batchnorm(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)))
