"""Agreement with PyTorch in float32: every layer, loss and optimizer, from the same weights.

The bounds are of the largest value in the result. Both sides round; where neither is exact they differ by a
few units in the last place of the numbers that were summed.
"""

import numpy as np
import pytest

import pycnn
from helpers import as_double, normal, randomize
from pycnn import functional as F
from pycnn import losses, nn, optim

torch = pytest.importorskip("torch")

SHAPE = (4, 6, 9, 10)

SUMS = 1e-5  # convolution, linear, normalization: sums of many products
POINTWISE = 2e-6  # activations, pooling, upsampling, losses

# constructor arguments are the same on both sides; the shape of the input is SHAPE unless given
LAYERS = [
    ("Conv2d", (6, 13, 3), {"padding": 1}, SUMS),
    (
        "Conv2d",
        (6, 13, (5, 2)),
        {"stride": (2, 3), "padding": (2, 1), "dilation": (1, 2), "bias": False},
        SUMS,
    ),
    ("Conv2d", (6, 9, 3), {"groups": 3, "padding": "same"}, SUMS),
    ("Conv2d", (6, 12, 3), {"groups": 6, "stride": 2}, SUMS),
    ("ConvTranspose2d", (6, 5, 3), {"stride": 2, "padding": 1, "output_padding": 1}, SUMS),
    ("ConvTranspose2d", (6, 4, (2, 3)), {"groups": 2, "dilation": 2, "bias": False}, SUMS),
    ("Linear", (10, 7), {}, SUMS),
    ("Linear", (10, 7), {"bias": False}, SUMS),
    ("BatchNorm2d", (6,), {}, SUMS),
    ("BatchNorm2d", (6,), {"eps": 0.1, "momentum": 0.3, "affine": False}, SUMS),
    ("BatchNorm2d", (6,), {"momentum": None}, SUMS),
    ("BatchNorm2d", (6,), {"track_running_stats": False}, SUMS),
    ("InstanceNorm2d", (6,), {}, SUMS),
    ("InstanceNorm2d", (6,), {"affine": True, "track_running_stats": True}, SUMS),
    ("LayerNorm", ((9, 10),), {}, SUMS),
    ("LayerNorm", (10,), {"elementwise_affine": False}, SUMS),
    ("GroupNorm", (3, 6), {}, SUMS),
    ("GroupNorm", (1, 6), {"affine": False}, SUMS),
    ("Sigmoid", (), {}, POINTWISE),
    ("ReLU", (), {}, POINTWISE),
    ("ReLU6", (), {}, POINTWISE),
    ("LeakyReLU", (0.2,), {}, POINTWISE),
    ("PReLU", (), {}, POINTWISE),
    ("PReLU", (6,), {}, POINTWISE),
    ("Softplus", (), {}, POINTWISE),
    ("Softplus", (2.0, 3.0), {}, POINTWISE),
    ("Mish", (), {}, POINTWISE),
    ("SiLU", (), {}, POINTWISE),
    ("GELU", (), {}, POINTWISE),
    ("GELU", (), {"approximate": "tanh"}, POINTWISE),
    ("ELU", (1.5,), {}, POINTWISE),
    ("SELU", (), {}, POINTWISE),
    ("Hardswish", (), {}, POINTWISE),
    ("Hardsigmoid", (), {}, POINTWISE),
    ("Tanh", (), {}, POINTWISE),
    ("Softmax", (1,), {}, POINTWISE),
    ("LogSoftmax", (-1,), {}, POINTWISE),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1}, POINTWISE),
    ("MaxPool2d", ((2, 3),), {"dilation": (2, 1), "ceil_mode": True}, POINTWISE),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, POINTWISE),
    ("AvgPool2d", ((3, 2),), {"padding": 1, "count_include_pad": False}, POINTWISE),
    ("AvgPool2d", (2,), {"divisor_override": 3}, POINTWISE),
    ("AdaptiveAvgPool2d", ((4, 3),), {}, POINTWISE),
    ("AdaptiveAvgPool2d", (1,), {}, POINTWISE),
    ("AdaptiveAvgPool2d", ((None, 3),), {}, POINTWISE),
    ("Flatten", (), {}, POINTWISE),
    ("Flatten", (1, 2), {}, POINTWISE),
    ("Dropout", (0.0,), {}, POINTWISE),
    ("Identity", (), {}, POINTWISE),
    ("Upsample", (), {"scale_factor": 2}, POINTWISE),
    ("Upsample", (), {"size": (7, 23)}, POINTWISE),
    ("Upsample", (), {"scale_factor": (1.7, 2.3), "mode": "bilinear"}, POINTWISE),
    ("Upsample", (), {"size": (5, 23), "mode": "bilinear", "align_corners": True}, POINTWISE),
]


def assert_near(got, want, tolerance, name):
    want = want.detach().numpy()
    assert got.shape == want.shape, name
    error = np.abs(as_double(got) - as_double(want)).max(initial=0) / max(1.0, np.abs(want).max(initial=0))
    assert error <= tolerance, f"{name}: error {error:.3g} of the largest value, {tolerance:.3g} is allowed"


def copy_state(ours, theirs):
    """The names of a state_dict are PyTorch's, so its values go over as they are."""
    theirs.load_state_dict({name: torch.tensor(np.array(value)) for name, value in ours.state_dict().items()})


def check_module(ours, theirs, x, tolerance, names=("y", "dx")):
    theirs.zero_grad()
    ours.zero_grad()
    tensor = torch.tensor(x, requires_grad=True)
    y, expected = ours(x), theirs(tensor)
    assert_near(y, expected, tolerance, names[0])
    dy = normal(y.shape, seed=5)
    expected.backward(torch.tensor(dy))
    assert_near(ours.backward(dy), tensor.grad, tolerance, names[1])
    gradients = dict(ours.named_parameters())
    assert [*gradients] == [name for name, _ in theirs.named_parameters()]
    for name, parameter in theirs.named_parameters():
        assert_near(gradients[name].grad, parameter.grad, tolerance, f"gradient of {name}")


@pytest.mark.parametrize(
    ("name", "arguments", "options", "tolerance"),
    LAYERS,
    ids=[f"{name} {arguments} {options or ''}" for name, arguments, options, _ in LAYERS],
)
def test_layer(name, arguments, options, tolerance):
    ours = randomize(getattr(nn, name)(*arguments, **options))
    theirs = getattr(torch.nn, name)(*arguments, **options)
    copy_state(ours, theirs)
    for step in range(2):
        check_module(ours, theirs, 2 * normal(SHAPE, seed=step), tolerance)
    for key, value in theirs.state_dict().items():
        assert_near(np.array(ours.state_dict()[key]), value, tolerance, key)

    ours.eval()
    theirs.eval()
    check_module(ours, theirs, 2 * normal(SHAPE, seed=3), tolerance, ("y in evaluation", "dx in evaluation"))


TARGETS = np.array([0, 3, 1, 1, 4, 2, 0, 3])
CLASS_WEIGHTS = np.array([0.5, 1, 2, 0.1, 1.5], np.float32)

LOSSES = [
    ("CrossEntropyLoss", {}),
    ("CrossEntropyLoss", {"reduction": "sum", "label_smoothing": 0.1}),
    ("CrossEntropyLoss", {"weight": CLASS_WEIGHTS, "label_smoothing": 0.2, "ignore_index": 1}),
    ("NLLLoss", {}),
    ("NLLLoss", {"weight": CLASS_WEIGHTS, "ignore_index": 0}),
    ("NLLLoss", {"reduction": "sum"}),
    ("MSELoss", {}),
    ("MSELoss", {"reduction": "sum"}),
    ("L1Loss", {}),
    ("L1Loss", {"reduction": "sum"}),
    ("BCEWithLogitsLoss", {}),
    ("BCEWithLogitsLoss", {"weight": CLASS_WEIGHTS, "pos_weight": CLASS_WEIGHTS[::-1].copy()}),
    ("BCEWithLogitsLoss", {"reduction": "sum"}),
]


@pytest.mark.parametrize(
    ("name", "options"), LOSSES, ids=[f"{name} {[*options]}" for name, options in LOSSES]
)
@pytest.mark.parametrize("images", [False, True], ids=["vectors", "images"])
def test_loss(name, options, images):
    by_class = name in ("CrossEntropyLoss", "NLLLoss")
    shape = (8, 5, 3, 2) if images and by_class else (8, 5)
    x = 2 * normal(shape)
    targets = normal(shape, seed=1)
    if by_class:
        targets = np.tile(TARGETS[:, None, None], (1, 3, 2)) if images else TARGETS
    elif name == "BCEWithLogitsLoss":
        targets = 1 / (1 + np.exp(-targets))

    as_tensors = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    ours, theirs = getattr(losses, name)(**options), getattr(torch.nn, name)(**as_tensors)
    tensor = torch.tensor(x, requires_grad=True)
    value, expected = ours(x, targets), theirs(tensor, torch.tensor(targets))
    assert value == pytest.approx(expected.item(), rel=POINTWISE * 5)
    expected.backward()
    assert_near(ours.backward(), tensor.grad, POINTWISE, "dx")


class OurNetwork(nn.Module):
    """Convolution, normalization, a residual, pooling and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8 * 4 * 4, 5)
        self.flatten = nn.Flatten()

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        return self.head(self.flatten(self.pool(F.relu(self.conv(x) + x))))


class TheirNetwork(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(8)
        self.conv = torch.nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.pool = torch.nn.MaxPool2d(2)
        self.head = torch.nn.Linear(8 * 4 * 4, 5)
        self.flatten = torch.nn.Flatten()

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        return self.head(self.flatten(self.pool(torch.relu(self.conv(x) + x))))


OPTIMIZERS = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    ("Adam", {"lr": 1e-3, "eps": 1e-4}),
    ("Adam", {"lr": 1e-3, "eps": 1e-4, "betas": (0.8, 0.99), "weight_decay": 0.01}),
    ("AdamW", {"lr": 1e-3, "eps": 1e-4}),
    ("RMSprop", {"lr": 1e-3, "eps": 1e-4}),
    ("RMSprop", {"lr": 1e-3, "eps": 1e-2, "momentum": 0.9, "centered": True, "weight_decay": 0.01}),
]


@pytest.mark.parametrize(
    ("name", "options"), OPTIMIZERS, ids=[f"{name} {options}" for name, options in OPTIMIZERS]
)
@pytest.mark.parametrize("by", ["hand", "Trainer"])
def test_twenty_steps_of_training(name, options, by):
    """The whole loop: forward, loss, backward, update. eps is large enough that Adam does not blow up
    rounding.

    PyTorch in float32 stays within 6e-7 of itself in float64 here; the bound leaves room for Winograd and for
    a decision of ReLU or max pooling that rounding turns. 20 steps change every weight tensor by 7e-3 or
    more.
    """
    tolerance = 1e-4
    ours, theirs = OurNetwork(), TheirNetwork()
    pycnn.manual_seed(0)
    randomize(ours)
    for _, parameter in ours.named_parameters():
        parameter.data[...] *= 0.2
    copy_state(ours, theirs)
    before = {key: np.array(value) for key, value in ours.state_dict().items()}

    our_optimizer = getattr(optim, name)(ours.parameters(), **options)
    their_optimizer = getattr(torch.optim, name)(theirs.parameters(), **options)
    our_loss, their_loss = losses.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()
    trainer = pycnn.Trainer(ours, loss=our_loss, optimizer=our_optimizer)
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, targets = rng.normal(size=(16, 3, 8, 8)).astype(np.float32), rng.integers(0, 5, 16)
        if by == "Trainer":
            value = trainer.step(x, targets)
        else:
            our_optimizer.zero_grad()
            value = our_loss(ours(x), targets)
            ours.backward(our_loss.backward())
            our_optimizer.step()
        their_optimizer.zero_grad()
        expected = their_loss(theirs(torch.tensor(x)), torch.tensor(targets))
        expected.backward()
        their_optimizer.step()
        assert value == pytest.approx(expected.item(), rel=tolerance)
    for key, want in theirs.state_dict().items():
        assert_near(np.array(ours.state_dict()[key]), want, tolerance, key)
        if "num_batches" not in key:
            assert (np.array(ours.state_dict()[key]) != before[key]).any(), f"{key} was not trained"


SCHEDULES = [
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("CosineAnnealingLR", {"T_max": 10, "eta_min": 0.01}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 12}),
]


@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=[name for name, _ in SCHEDULES])
def test_learning_rate_schedule(name, options):
    ours = optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
    theirs = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)
    our_schedule = getattr(optim.lr_scheduler, name)(ours, **options)
    their_schedule = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for step in range(11):
        ours.step()
        theirs.step()
        our_schedule.step()
        their_schedule.step()
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"]), f"step {step}"
