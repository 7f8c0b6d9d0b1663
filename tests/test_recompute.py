"""Results computed again in backward: the same bits, in less memory."""

import numpy as np
import pytest

from pycnn import Trainer, losses, models, nn, optim, random, trainer
from pycnn import functional as F
from pycnn.tracing import Traced

KINDS = ("none", "cheap", "most")


def train(make, shape, classes, kind, monkeypatch, steps=2, **arguments):
    """Losses, and all parameters and states, after a few steps."""
    monkeypatch.setitem(trainer._RECOMPUTE, "normal", kind)
    with random.seeded(3):
        model = make()
        rng = np.random.default_rng(0)
        optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        runner = Trainer(model, losses.CrossEntropyLoss(), optimizer, **arguments)
        values = []
        for _ in range(steps):
            x = rng.standard_normal(shape, dtype=np.float32)
            y = rng.integers(0, classes, (shape[0], *shape[2:]) if isinstance(model, models.UNet) else shape[0])
            values.append(runner.step(x, y))
    return values, model.state_dict(), next(iter(runner._traces.values())).runner.bytes_by_kind()


def sequence():
    """What only passes over memory, in all kinds: some of it follows what was dropped itself."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.InstanceNorm2d(32, affine=True, track_running_stats=True),
        nn.SiLU(),
        nn.Dropout(0.3),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.BatchNorm2d(32, momentum=None),
        nn.LeakyReLU(0.1),
        nn.Conv2d(32, 64, 3, padding=1, stride=2),
        nn.GroupNorm(4, 64),
        nn.Tanh(),
        nn.MaxPool2d(3, 1, 1),
        nn.PReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


NETWORKS = {
    "sequence": (sequence, (8, 3, 128, 128), 10),
    "resnet18": (lambda: models.resnet18(10), (24, 3, 96, 96), 10),
    "resnet50": (lambda: models.resnet50(10), (2, 3, 64, 64), 10),
    "mobilenet_v2": (lambda: models.mobilenet_v2(10), (2, 3, 96, 96), 10),
    "unet": (lambda: models.unet(3, 3, base_width=8), (2, 3, 96, 96), 3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_training_gives_the_same_bits_in_less_memory(name, monkeypatch):
    make, shape, classes = NETWORKS[name]
    values, states, plain = train(make, shape, classes, "none", monkeypatch)
    for kind in ("cheap", "most"):
        got_values, got_states, memory = train(make, shape, classes, kind, monkeypatch)
        assert got_values == values
        for key, state in states.items():
            np.testing.assert_array_equal(got_states[key], state, err_msg=f"{kind}: {key}")
        got, whole = (m["activations"] + m["gradients"] for m in (memory, plain))
        small = kind == "cheap" and whole < 2**26  # left as it is
        assert got == whole if small else got < 0.85 * whole


def test_micro_batches_in_low_memory(monkeypatch):
    make, _, classes = NETWORKS["sequence"]
    shape = (5, 3, 64, 64)
    plain = train(make, shape, classes, "none", monkeypatch, micro_batch_size=3)
    low = train(make, shape, classes, "none", monkeypatch, micro_batch_size=3, memory="low")
    assert low[0] == plain[0]
    for key, state in plain[1].items():
        np.testing.assert_array_equal(low[1][key], state)


def traced_bytes(model, shape, kind):
    tracer, output = model.trace((shape,), "float32", input_gradients=False)
    loss = losses.CrossEntropyLoss()
    value = loss.trace(tracer, output, loss.input_targets(tracer, shape[:1]))
    traced = Traced(tracer, (value,), copy=False, repeat=False, watch=True, recompute=kind)
    return traced.runner.bytes_by_kind()


def test_memory_of_a_training_step():
    """ResNet-18 and -50 as people train them: megabytes of what a step keeps, without workspace."""
    for make, batch, cheap, most in ((models.resnet18, 16, 190, 115), (models.resnet50, 8, 420, 210)):
        with random.seeded(0):
            model = make()
        kinds = {kind: traced_bytes(model, (batch, 3, 224, 224), kind) for kind in KINDS}
        mebibytes = {k: (b["activations"] + b["gradients"]) / 2**20 for k, b in kinds.items()}
        assert mebibytes["cheap"] < cheap
        assert mebibytes["most"] < most
        assert mebibytes["cheap"] < 0.75 * mebibytes["none"]
        assert mebibytes["most"] < 0.45 * mebibytes["none"]


class Shortcuts(nn.Module):
    """Sums of many results, an output from within, and an input that is read late."""

    def __init__(self):
        super().__init__()
        self.convs = nn.Sequential(*[nn.Conv2d(16, 16, 3, padding=1) for _ in range(6)])
        self.norms = nn.Sequential(*[nn.BatchNorm2d(16) for _ in range(6)])

    def forward(self, x):
        kept, inner = [x], None
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(F.relu(kept[-1] + kept[0] * 0.5)))
            kept.append(F.tanh(y + kept[-1]))
            inner = kept[-1] if number == 2 else inner
        return F.concat(kept[1:], 1), inner


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_several_backward_runs_and_outputs_from_within(dtype):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 16, 12, 12)).astype(dtype)
    dy = rng.standard_normal((2, 96, 12, 12)).astype(dtype), rng.standard_normal((2, 16, 12, 12)).astype(dtype)
    results = {}
    for kind in KINDS:
        with random.seeded(5):
            model = Shortcuts() if dtype == "float32" else Shortcuts().double()
        tracer, outputs = model.trace((x.shape,), dtype)
        traced = Traced(tracer, outputs, copy=True, recompute=kind)
        y = traced.forward((x,), 0, 0)
        gradients = [traced.backward(dy) for _ in range(2)]
        np.testing.assert_array_equal(gradients[0], gradients[1])
        grads = [p.grad.copy() for p in model.parameters()]
        results[kind] = [*y, gradients[0], *grads, *model.state_dict().values()]
    for kind in ("cheap", "most"):
        for got, wanted in zip(results[kind], results["none"], strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_says_what_memory_may_be():
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="memory: got 'little', expected 'normal' or 'low'"):
        Trainer(model, losses.MSELoss(), optim.SGD(model.parameters(), lr=0.1), memory="little")
