"""Agreement of pycnn.models with PyTorch, from the same weights.

Outputs are compared in float32. Gradients are in float64: where rounding turns a decision of a ReLU, which happens in
networks of this depth, one unit's whole share of a gradient comes or goes, in PyTorch as here (up to 0.3 of the largest
value in float32 between PyTorch and itself in float64).
"""

import functools

import numpy as np
import pytest

import pycnn
from helpers import as_double, normal
from pycnn import losses, models, nn, optim, tracing

torch = pytest.importorskip("torch")
from pycnn.bench.engines import torch_networks as torch_models  # noqa: E402

NARROW = (16, 0, 24, 0, 32, 32, 0, 32, 32, 0, 32, 32, 0)  # VGG-11's channels; the classifier is large enough
PAIRS = {
    "resnet18": (lambda: models.resnet18(10), lambda: torch_models.resnet18(10)),
    "resnet34": (lambda: models.resnet34(10), lambda: torch_models.resnet34(10)),
    "resnet50": (lambda: models.resnet50(10), lambda: torch_models.resnet50(10)),
    "resnet20_cifar": (models.resnet20_cifar, torch_models.resnet20_cifar),
    "mobilenet_v2": (lambda: models.mobilenet_v2(10), lambda: torch_models.mobilenet_v2(10)),
    "VGG": (lambda: models.VGG(NARROW, 10), lambda: torch_models.VGG(NARROW, 10, 3)),
    "unet": (lambda: models.unet(3, base_width=8), lambda: torch_models.unet(3, base_width=8)),
}
SHAPES = {"resnet20_cifar": (2, 3, 20, 24), "VGG": (2, 3, 40, 33), "unet": (2, 3, 37, 50)}
SHAPE = (2, 3, 64, 48)

TRAINING, EVALUATION, DOUBLE = 3e-4, 2e-5, 1e-9  # of the largest value in the result


@pytest.fixture(autouse=True)
def without_initial_values(monkeypatch):
    """They come from PyTorch."""
    monkeypatch.setattr(nn.init, "fill_uniform", lambda *arguments: None)
    monkeypatch.setattr(nn.init, "fill_normal", lambda *arguments: None)


@pytest.mark.parametrize("name", PAIRS)
def test_names_order_and_shapes(name):
    ours, theirs = (make() for make in PAIRS[name])
    assert [(k, tuple(v.shape)) for k, v in theirs.state_dict().items()] == [
        (k, v.shape) for k, v in ours.state_dict().items()
    ]
    assert [k for k, _ in theirs.named_parameters()] == [k for k, _ in ours.named_parameters()]


def make_pair(name):
    """Both networks from the same weights, with normalization that does something and without dropout."""
    make_ours, make_theirs = PAIRS[name]
    torch.manual_seed(0)
    ours, theirs = make_ours(), make_theirs()
    for module in theirs.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0.0, 0.2)
        elif isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for module in ours.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


def assert_near(got, want, tolerance, name):
    want = as_double(want.detach().numpy())
    error = np.abs(got - want).max() / np.abs(want).max(initial=1e-30)
    assert got.shape == want.shape and error <= tolerance, f"{name}: error {error:.3g} of the largest value"


@pytest.mark.parametrize("name", PAIRS)
def test_outputs(name):
    ours, theirs = make_pair(name)
    x = normal(SHAPES.get(name, SHAPE))
    with torch.no_grad():
        assert_near(ours(x), theirs(torch.tensor(x)), TRAINING, "y in training")
        state = ours.state_dict()
        for key, value in theirs.state_dict().items():
            assert_near(state[key], value, TRAINING, key)  # running statistics moved alike
        assert_near(ours.eval()(x), theirs.eval()(torch.tensor(x)), EVALUATION, "y in evaluation")


SHALLOW = {
    "resnet50": (
        lambda: models.ResNet(models.resnet.Bottleneck, (1, 2, 1, 1), 10),
        lambda: torch_models.ResNet(torch_models.bottleneck, (256, 512, 1024, 2048), (1, 2, 1, 1), 10, 3),
    )
}


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "resnet34"])
def test_gradients(name, monkeypatch):
    monkeypatch.setitem(PAIRS, name, SHALLOW.get(name, PAIRS[name]))
    ours, theirs = make_pair(name)
    ours.double()
    theirs.double()
    x = normal(SHAPES.get(name, (4, 3, 24, 20)), np.float64)
    tensor = torch.tensor(x, requires_grad=True)
    y, expected = ours(x), theirs(tensor)
    assert_near(y, expected, DOUBLE, "y")
    dy = normal(y.shape, np.float64, seed=1)
    expected.backward(torch.tensor(dy))
    assert_near(ours.backward(dy), tensor.grad, DOUBLE, "dx")
    gradients = dict(ours.named_parameters())
    scale = max(float(parameter.grad.abs().max()) for parameter in theirs.parameters())
    for key, parameter in theirs.named_parameters():
        # What goes before batch normalization has a bias without effect: its gradient is rounding.
        if parameter.grad.abs().max() > 1e-9 * scale:
            assert_near(gradients[key].grad, parameter.grad, DOUBLE, f"gradient of {key}")
        else:
            assert np.abs(gradients[key].grad).max() <= 1e-9 * scale, key


def losses_apart(dtype, seed):
    """How far the losses of a few steps of ResNet-18, by the Trainer, lie from PyTorch's in float64, at most and as a
    share. They fall from 3 to 0.5."""
    ours, theirs = make_pair("resnet18")
    theirs.double()
    if dtype == np.float64:
        ours.double()
    optimizer = torch.optim.SGD(theirs.parameters(), 0.001, momentum=0.9, weight_decay=5e-4)
    trainer = pycnn.Trainer(
        ours, losses.CrossEntropyLoss(), optim.SGD(ours.parameters(), 0.001, momentum=0.9, weight_decay=5e-4)
    )
    x, targets = normal((8, 3, 32, 32), dtype, seed=seed), np.arange(8)
    apart = []
    for _ in range(4):
        optimizer.zero_grad()
        expected = torch.nn.functional.cross_entropy(theirs(torch.tensor(x).double()), torch.tensor(targets))
        expected.backward()
        optimizer.step()
        apart.append(abs(trainer.step(x, targets) / expected.item() - 1))
    return max(apart)


def test_the_loss_of_a_resnet_follows_in_double():
    assert losses_apart(np.float64, seed=7) <= 1e-12


def test_the_loss_of_a_resnet_follows():
    """One ReLU that rounding turns moves gradients by 3e-3 at once. PyTorch's own losses in float32 end up to 6e-2 from
    those in float64, on which images hangs on the processor: so float64 is the measure. On about half of all sets of
    images some decide otherwise, on which hangs on the way to round; where all decide alike, 2e-5 is what is lost."""
    apart = sorted(losses_apart(np.float32, seed) for seed in range(7, 17))
    assert apart[1] <= 2e-5 and apart[7] <= 1e-2 and apart[-1] <= 6e-2, apart


STEPS, WINDOW = 50, 10


def fifty_batches():
    """Images whose class can be learned: noise about a mean image for each class."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(10, 3, 48, 48))
    for _ in range(STEPS):
        targets = rng.integers(0, 10, 8)
        yield (means[targets] + 0.5 * rng.normal(size=(8, 3, 48, 48))).astype(np.float32), targets


@pytest.fixture(scope="module")
def fifty_losses():
    """PyTorch's."""
    _, theirs = make_pair("resnet18")
    optimizer = torch.optim.SGD(theirs.parameters(), 0.001, momentum=0.9, weight_decay=5e-4)
    values = []
    for x, targets in fifty_batches():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(targets))
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return np.array(values)


@pytest.mark.parametrize("winograd", [True, False])
def test_the_loss_curve_of_fifty_steps_follows(winograd, fifty_losses, monkeypatch):
    """Training amplifies rounding until single losses differ by 0.1 and more, between PyTorch and itself from weights
    one rounding apart, too (docs/resnet18_loss_curve.txt). What stays is the curve: the means of ten steps, which
    fall from 2.3 to 0.2."""
    monkeypatch.setattr(tracing, "Runner", functools.partial(tracing.Runner, winograd=winograd))
    ours, _ = make_pair("resnet18")
    optimizer = optim.SGD(ours.parameters(), 0.001, momentum=0.9, weight_decay=5e-4)
    trainer = pycnn.Trainer(ours, losses.CrossEntropyLoss(), optimizer)
    values = np.array([trainer.step(x, targets) for x, targets in fifty_batches()])
    assert values[:2] == pytest.approx(fifty_losses[:2], rel=1e-4)
    assert values[:3] == pytest.approx(fifty_losses[:3], rel=1e-2)  # some ReLU may have decided otherwise by then
    curves = [losses_.reshape(-1, WINDOW).mean(1) for losses_ in (values, fifty_losses)]
    assert np.abs(curves[0] - curves[1]).max() <= 0.05
    assert curves[1][-1] < 0.2 * curves[1][0]
