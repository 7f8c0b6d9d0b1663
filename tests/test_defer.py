"""Batch normalizations whose results the convolutions behind them make: the same numbers, in half the memory."""

import numpy as np
import pytest

from pycnn import Trainer, losses, models, nn, optim, random
from test_recompute import traced_bytes


def chain():
    """Results of 512 KiB and more, at batch 4 of 40 by 40, read by one convolution each."""
    return nn.Sequential(
        nn.Conv2d(8, 48, 1, bias=False),
        nn.BatchNorm2d(48),
        nn.ReLU6(),
        nn.Conv2d(48, 48, 3, padding=1, groups=48, bias=False),
        nn.BatchNorm2d(48),
        nn.LeakyReLU(0.1),
        nn.Conv2d(48, 32, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.Conv2d(32, 40, 1, bias=False),
        nn.BatchNorm2d(40),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, 5),
    )


def data(batch=4):
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, 8, 40, 40), dtype=np.float32), rng.integers(0, 5, batch)


def made(mode=True):
    with random.seeded(2):
        return chain().train(mode)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_follow_float64(training):
    """In evaluation running statistics normalize, and pass gradients as constants."""
    x, _ = data()
    dy = np.random.default_rng(1).standard_normal((4, 40, 40, 40))
    got, exact = nn.Sequential(*list(made(training))[:11]), nn.Sequential(*list(made(training))[:11]).double()
    got.train(training), exact.train(training)
    y, expected = got(x), exact(x.astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())
    dx, expected_dx = got.backward(dy.astype(np.float32)), exact.backward(dy)
    np.testing.assert_allclose(dx, expected_dx, rtol=0, atol=1e-4 * np.abs(expected_dx).max())
    for (name, p), q in zip(got.named_parameters(), exact.parameters(), strict=True):
        # What a normalization behind it takes out again is a small rest of large terms.
        largest = max(np.abs(q.grad).max(), 1.0)
        np.testing.assert_allclose(p.grad, q.grad, rtol=0, atol=1e-4 * largest, err_msg=name)
    for name, state in got.state_dict().items():
        np.testing.assert_allclose(state, exact.state_dict()[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("frozen", [0, 2, 5, 9, 13])
def test_frozen_layers(frozen):
    """No gradient work below the first trained layer, so that nothing keeps what these layers save for backward."""
    x, y = data()
    model, plain = made(), made()
    for layer in list(model)[:frozen]:
        layer.requires_grad_(False)
    steps = [
        Trainer(m, losses.CrossEntropyLoss(), optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.1))
        for m in (model, plain)
    ]
    first, expected = (runner.step(x, y) for runner in steps)
    assert first == pytest.approx(expected, rel=1e-6)
    for (name, got), p in zip(model.named_parameters(), plain.parameters(), strict=True):
        if got.requires_grad:
            np.testing.assert_allclose(got.data, p.data, rtol=1e-5, atol=1e-6, err_msg=name)


def test_memory_of_a_training_step():
    """MobileNetV2 at batch 16, megabytes of what a step keeps: 745 if normalization kept its results."""
    with random.seeded(0):
        model = models.mobilenet_v2()
    kinds = {kind: traced_bytes(model, (16, 3, 224, 224), kind) for kind in ("cheap", "most")}
    mebibytes = {k: (b["activations"] + b["gradients"]) / 2**20 for k, b in kinds.items()}
    assert mebibytes["cheap"] < 430
    assert mebibytes["most"] < 190
