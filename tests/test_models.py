"""The networks of pycnn.models: their size, what they take, how they start, and that they learn."""

import math

import numpy as np
import pytest

import pycnn
from helpers import normal, raises
from pycnn import losses, models, nn, optim

# name: parameters, MACs of one image of the size that it is made for. Of the networks for photographs these are the
# figures that torchvision publishes (MACs in thousands of millions: 0.301, 1.814, 3.664, 4.089, 7.609).
SIZES = {
    "lenet5": (61_706, 25 * 6 * 784 + 25 * 6 * 16 * 100 + 400 * 120 + 120 * 84 + 84 * 10),
    "digits_cnn": (
        97_066,
        25 * 32 * 784 + 9 * 32 * 32 * 196 + 9 * 32 * 64 * 196 + 9 * 64 * 64 * 49 + 64 * 49 * 10,
    ),
    "mobilenet_v2": (3_504_872, 300_774_272),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet20_cifar": (
        269_722,
        9 * 1024 * (3 * 16 + 6 * 16 * 16) + 9 * 256 * (16 * 32 + 5 * 32 * 32) + 9 * 64 * (32 * 64 + 5 * 64 * 64) + 640,
    ),
    "unet": (31_037_698, 48_171_581_440),
    "vgg11_bn": (132_868_840, 7_609_090_048),
}
every_model = pytest.mark.parametrize("name", SIZES)
small_model = pytest.mark.parametrize("name", ["lenet5", "digits_cnn"])


@pytest.fixture
def without_initial_values(monkeypatch):
    """For tests to which weights do not matter: there may be a hundred millions of them."""
    monkeypatch.setattr(nn.init, "fill_uniform", lambda *arguments: None)
    monkeypatch.setattr(nn.init, "fill_normal", lambda *arguments: None)


@pytest.mark.usefixtures("without_initial_values")
def test_create_knows_all_of_them():
    assert models.names() == sorted(SIZES)
    for name in ("digits_cnn", "lenet5", "unet"):
        assert type(models.create(name, num_classes=3)) is type(getattr(models, name)())
    for function in (models.create, models.input_shape):
        with raises(ValueError, "name", "alexnet", "lenet5", "digits_cnn"):
            function("alexnet")


@every_model
@pytest.mark.usefixtures("without_initial_values")
def test_size(name):
    model = getattr(models, name)()
    found = pycnn.summary(model, models.input_shape(name))
    assert (found.parameters, found.macs) == SIZES[name]
    assert sum(row.parameters for row in found.rows) == model.num_parameters == found.parameters
    assert model.macs(models.input_shape(name)) == found.macs


@pytest.mark.parametrize("name", [name for name in SIZES if name != "vgg11_bn"])  # which is large, and sequential
@pytest.mark.usefixtures("without_initial_values")
def test_classes_and_channels(name):
    model = getattr(models, name)(num_classes=7, in_channels=2)
    side = 28 if name == "lenet5" else 40
    map_of_classes = (side, side) if name == "unet" else ()
    _, output = model.trace(((2, 2, side, side),))
    assert output.shape == (2, 7, *map_of_classes)
    with raises(ValueError, "x"):
        model.trace(((2, 1, side, side),))
    with raises(ValueError, "in_channels", "0"):
        getattr(models, name)(in_channels=0)


@small_model
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


def small_vgg():
    return models.VGG((16, 0, 32, 0), num_classes=10, in_channels=3)


# Standard deviations: He et al., "Delving deep into rectifiers", 2015, by what a result feeds or by what feeds it.
def by_fan_out(weight):
    return math.sqrt(2 / (weight.shape[0] * math.prod(weight.shape[2:])))


def by_fan_in(weight):
    return math.sqrt(2 / math.prod(weight.shape[1:]))


def by_default(weight):
    return 1 / math.sqrt(3 * math.prod(weight.shape[1:]))  # uniform within 1 / sqrt(fan in), as in PyTorch


@pytest.mark.parametrize(
    ("make", "of_convolutions", "of_linear"),
    [
        (models.resnet18, by_fan_out, by_default),
        (models.resnet20_cifar, by_fan_in, by_fan_in),
        (models.mobilenet_v2, by_fan_out, lambda weight: 0.01),
        (small_vgg, by_fan_out, lambda weight: 0.01),
        (lambda: models.unet(base_width=8), by_default, None),
    ],
    ids=["resnet18", "resnet20_cifar", "mobilenet_v2", "VGG", "unet"],
)
def test_initial_values(make, of_convolutions, of_linear):
    pycnn.manual_seed(0)
    for name, module in make().named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight.data == 1).all() and not module.bias.data.any(), name
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            weight = module.weight.data.astype(np.float64)
            want = (of_linear if isinstance(module, nn.Linear) else of_convolutions)(weight)
            spread = 6 * want / math.sqrt(weight.size)  # six standard errors; those of the deviation are smaller
            assert abs(weight.mean()) < spread and abs(weight.std() - want) < spread, name
            if module.bias is not None and want == 0.01:
                assert not module.bias.data.any(), name


def test_lenet_is_for_28_by_28():
    with raises(ValueError, "x", "(1, 1, 32, 32)", "28"):
        models.lenet5()(normal((1, 1, 32, 32)))


@pytest.mark.parametrize("size", [(4, 4), (32, 32), (33, 47)])
def test_digits_cnn_takes_other_sizes(size):
    assert models.digits_cnn()(normal((2, 1, *size))).shape == (2, 10)


def test_unet_takes_odd_sizes_from_16_up():
    model = models.unet(num_classes=3, in_channels=1, base_width=2)
    assert model(normal((2, 1, 37, 51))).shape == (2, 3, 37, 51)
    with raises(ValueError, "x", "(1, 1, 32, 15)", "16"):
        model(normal((1, 1, 32, 15)))
    with raises(ValueError, "base_width", "0"):
        models.unet(base_width=0)


@small_model
def test_learns_real_digits(name):
    """Far from done after two passes over 1,000 digits, and far from chance."""
    train, test = pycnn.data.mnist5k()
    pycnn.manual_seed(0)
    model = getattr(models, name)()
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optim.AdamW(model.parameters(), 3e-3))
    trainer.fit(train[:1000], epochs=2, batch_size=32, progress=False)
    assert trainer.evaluate(test[:250])["accuracy"] > 0.8


def test_frozen_layers_cost_no_gradients():
    """Fine-tuning: below the first layer that is trained nothing is computed backward, and nothing is kept for it."""
    pycnn.manual_seed(0)
    x, y = normal((4, 3, 32, 32)), np.arange(4)
    model = models.resnet20_cifar().eval()  # so that a step leaves no trace
    memory = {}
    gradients = {}
    for frozen in (False, True):
        model.requires_grad_(not frozen)
        model.linear.requires_grad_(True)
        model.zero_grad()
        trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.0))
        trainer.step(x, y)
        [traced] = trainer._traces.values()
        memory[frozen] = traced.runner.bytes
        gradients[frozen] = {name: parameter.grad.copy() for name, parameter in model.named_parameters()}
    for name, gradient in gradients[True].items():
        if name.startswith("linear"):
            np.testing.assert_array_equal(gradient, gradients[False][name])
        else:
            assert not gradient.any() and gradients[False][name].any(), name
    assert memory[True] < memory[False] / 3
