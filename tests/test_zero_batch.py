"""No images at all: outputs empty, gradients zero, running statistics untouched, mean loss 0."""

import numpy as np
import pytest

from helpers import DTYPES, buffer, in_dtype, raises
from pycnn import functional as F
from pycnn import losses, nn, optim


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        return F.concat([F.relu(self.norm(self.conv(x)) + x), x], dim=1)[:, 2:9]


# layer, shape of the output beyond the batch, for images of (6, 8, 8)
LAYERS = {
    "Conv2d": (lambda: nn.Conv2d(6, 4, 3, stride=2, padding=1), (4, 4, 4)),
    "Conv2d depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6), (6, 6, 6)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(6, 4, 2, stride=2), (4, 16, 16)),
    "Linear": (lambda: nn.Linear(8, 3), (6, 8, 3)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(6), (6, 8, 8)),
    "BatchNorm2d in evaluation": (lambda: nn.BatchNorm2d(6).eval(), (6, 8, 8)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True), (6, 8, 8)),
    "LayerNorm": (lambda: nn.LayerNorm((8, 8)), (6, 8, 8)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 6), (6, 8, 8)),
    "ReLU": (nn.ReLU, (6, 8, 8)),
    "SiLU": (nn.SiLU, (6, 8, 8)),
    "PReLU": (lambda: nn.PReLU(6), (6, 8, 8)),
    "Softmax": (lambda: nn.Softmax(dim=1), (6, 8, 8)),
    "LogSoftmax": (lambda: nn.LogSoftmax(dim=-1), (6, 8, 8)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), (6, 4, 4)),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 1, 1), (6, 8, 8)),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d(1), (6, 1, 1)),
    "Flatten": (nn.Flatten, (384,)),
    "Dropout": (nn.Dropout, (6, 8, 8)),
    "Upsample nearest": (lambda: nn.Upsample(scale_factor=2), (6, 16, 16)),
    "Upsample bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (6, 16, 16)),
    "Identity": (nn.Identity, (6, 8, 8)),
    "Sequential": (
        lambda: nn.Sequential(
            nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
        ),
        (5,),
    ),
    "a DAG": (Residual, (7, 8, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer(name, dtype):
    make, shape = LAYERS[name]
    layer = in_dtype(make(), dtype)
    before = {key: np.array(value) for key, value in layer.state_dict().items() if "running" in key}

    y = layer(np.zeros((0, 6, 8, 8), dtype))
    assert y.shape == (0, *shape)
    assert y.dtype == dtype
    dx = layer.backward(np.zeros(y.shape, dtype))
    assert dx.shape == (0, 6, 8, 8)
    assert dx.dtype == dtype

    for parameter_name, parameter in layer.named_parameters():
        assert not parameter.grad.any(), f"gradient of {parameter_name}"
    for key, value in before.items():
        np.testing.assert_array_equal(layer.state_dict()[key], value, err_msg=key)


@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch_does_not_disturb_the_next(name):
    layer = LAYERS[name][0]()
    images = np.ones((2, 6, 8, 8), np.float32)
    layer.eval()
    want = np.array(layer(images))
    layer(images[:0])
    np.testing.assert_array_equal(layer(images), want)


LOSSES = {
    "CrossEntropyLoss": (losses.CrossEntropyLoss, (0, 5), np.zeros(0, int)),
    "CrossEntropyLoss of pixels": (losses.CrossEntropyLoss, (0, 5, 3, 2), np.zeros((0, 3, 2), int)),
    "CrossEntropyLoss smoothed": (
        lambda **options: losses.CrossEntropyLoss(label_smoothing=0.1, **options),
        (0, 5),
        np.zeros(0, int),
    ),
    "NLLLoss": (losses.NLLLoss, (0, 5), np.zeros(0, int)),
    "MSELoss": (losses.MSELoss, (0, 5), None),
    "L1Loss": (losses.L1Loss, (0, 5), None),
    "BCEWithLogitsLoss": (losses.BCEWithLogitsLoss, (0, 5), None),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_is_zero(name, reduction, dtype):
    make, shape, targets = LOSSES[name]
    loss = make(reduction=reduction)
    value = loss(np.zeros(shape, dtype), np.zeros(shape, dtype) if targets is None else targets)
    assert value == 0.0
    dlogits = loss.backward()
    assert dlogits.shape == shape
    assert dlogits.dtype == dtype


def test_mean_over_ignored_targets_only():
    """0 / 0, as in PyTorch: unlike an empty batch, this is a mistake in the data, and NaN shows it. No gradient."""
    loss = losses.CrossEntropyLoss(ignore_index=7)
    assert np.isnan(loss(np.ones((2, 3), np.float32), np.array([7, 7])))
    assert not loss.backward().any()


def test_training_step_without_images_changes_nothing():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    before = {key: np.array(value) for key, value in model.state_dict().items()}
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    loss = losses.CrossEntropyLoss()
    assert loss(model(np.zeros((0, 1, 4, 4), np.float32)), np.zeros(0, int)) == 0.0
    model.backward(loss.backward())
    optimizer.step()
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.data, before[name], err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_needs_more_than_one_value_per_channel(dtype):
    """Their variance would be 0 whatever they are, and the unbiased one 0/0."""
    layer = in_dtype(nn.BatchNorm2d(3), dtype)
    x = np.ones((1, 3, 1, 1), dtype)
    with raises(ValueError, "x", "(1, 3, 1, 1)"):
        layer(x)
    np.testing.assert_array_equal(buffer(layer, "running_mean"), 0)
    np.testing.assert_array_equal(buffer(layer, "running_var"), 1)
    layer.eval()
    assert np.isfinite(layer(x)).all()
