"""The training loop: one step against the loop written by hand, parts of batches, fit, evaluate, predict."""

import re

import numpy as np
import pytest

import pycnn
from helpers import assert_close, in_dtype, normal, raises
from pycnn import data, losses, nn, optim, regularizers
from pycnn.optim import lr_scheduler


def network(dropout=0.0, norm=False):
    pycnn.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4) if norm else nn.Identity(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4 * 4 * 4, 3),
    )


def stripes(n, dtype=np.float32, seed=0):
    """Images of three kinds that a small network tells apart: lying, standing, and no stripes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    bands = np.where(np.arange(8) // 2 % 2, 1.0, -1.0)
    x = 0.3 * rng.normal(size=(n, 1, 8, 8))
    x[y == 0] += bands[:, None]
    x[y == 1] += bands[None, :]
    return x.astype(dtype), y


def trainer(model=None, loss=None, kind=optim.SGD, lr=0.1, momentum=0.9, **options):
    model = network() if model is None else model
    settings = {"momentum": momentum} if kind is optim.SGD else {}
    optimizer = kind(model.parameters(), lr, **settings)
    return pycnn.Trainer(model, loss=loss or losses.CrossEntropyLoss(), optimizer=optimizer, **options)


def weights(model):
    return {name: value.copy() for name, value in model.state_dict().items()}


def assert_same(model, other):
    for name, value in other.items():
        np.testing.assert_array_equal(model.state_dict()[name], value, err_msg=name)


# One step.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("norm", [False, True])
def test_step_is_the_loop_by_hand(dtype, norm):
    x, y = stripes(9, dtype)
    ours, by_hand = in_dtype(network(norm=norm), dtype), in_dtype(network(norm=norm), dtype)
    train = trainer(ours)
    loss, optimizer = losses.CrossEntropyLoss(), optim.SGD(by_hand.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        value = train.step(x, y)
        optimizer.zero_grad()
        want = loss(by_hand(x), y)
        by_hand.backward(loss.backward())
        optimizer.step()
        assert isinstance(value, float)
        assert value == pytest.approx(want, rel=1e-5)
    for name, want in by_hand.state_dict().items():
        assert_close(ours.state_dict()[name], want, 1e-5, name=name)


LOSSES = {
    "cross-entropy": (losses.CrossEntropyLoss, 3, "classes"),
    "weights and ignored": (
        lambda **o: losses.CrossEntropyLoss(weight=[0.2, 1, 3], ignore_index=1, label_smoothing=0.1, **o),
        3,
        "classes",
    ),
    "NLL": (losses.NLLLoss, 3, "classes"),
    "MSE": (losses.MSELoss, 3, "numbers"),
    "L1": (losses.L1Loss, 3, "numbers"),
    "BCE": (losses.BCEWithLogitsLoss, 3, "parts"),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_in_parts_is_the_batch(name, reduction):
    make, _, kind = LOSSES[name]
    x, y = stripes(25)
    if kind != "classes":
        y = normal((25, 3), seed=3)
    if kind == "parts":
        y = 1 / (1 + np.exp(-y))
    whole = trainer(loss=make(reduction=reduction), lr=0.01)
    parts = trainer(loss=make(reduction=reduction), lr=0.01, micro_batch_size=7)
    for _ in range(3):
        assert parts.step(x, y) == pytest.approx(whole.step(x, y), rel=1e-4)
    for key, want in whole.model.state_dict().items():
        assert_close(parts.model.state_dict()[key], want, 1e-5, name=key)


def test_a_part_whose_targets_are_all_ignored_has_no_say():
    x, y = stripes(16)
    y[:8] = -100
    whole, parts = trainer(), trainer(micro_batch_size=8)
    assert parts.step(x, y) == pytest.approx(whole.step(x, y), rel=1e-5)
    for key, want in whole.model.state_dict().items():
        assert_close(parts.model.state_dict()[key], want, 1e-5, name=key)
    assert parts.evaluate(x, y, batch_size=4) == pytest.approx(whole.evaluate(x, y), rel=1e-5)
    y[:] = -100
    before = weights(parts.model)
    parts.optimizer.param_groups[0]["momentum"] = 0.0
    assert np.isnan(parts.step(x, y)) and np.isnan(parts.evaluate(x, y)["loss"])
    assert_same(parts.model, before)


def test_parts_are_nearly_equal():
    train = trainer(micro_batch_size=8)
    train.step(*stripes(65))
    assert {shape[0] for (_, shape, *_), _ in train._traces} == {7, 8}


def test_memory_is_bounded_by_the_parts():
    def memory(images, micro_batch_size):
        train = trainer(micro_batch_size=micro_batch_size)
        train.step(*stripes(images))
        return sum(traced.runner.bytes for traced in train._traces.values())

    assert memory(64, 32) == memory(640, 32)
    assert memory(640, 32) < memory(640, 640) / 6


def test_the_penalty_is_in_the_loss():
    x, y = stripes(9)
    plain, penalized = trainer(), trainer(regularizer=regularizers.L2(0.1))
    penalty = regularizers.L2(0.1).penalty(penalized.model)
    assert penalty > 0
    assert penalized.step(x, y) == pytest.approx(plain.step(x, y) + penalty, rel=1e-5)


def test_proximal_threshold_goes_by_the_groups_rates():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for layer in model:
        layer.weight.data = normal((4, 4))
    groups = [
        {"params": list(model[0].parameters()), "lr": 0.0},
        {"params": list(model[1].parameters()), "lr": 1.0},
    ]
    optimizer = optim.SGD(groups, 0.1)
    regularizers.L1(0.5, proximal=True).apply_proximal(model, optimizer)
    np.testing.assert_array_equal(model[0].weight.data, normal((4, 4)))
    want = np.sign(normal((4, 4))) * np.maximum(np.abs(normal((4, 4))) - 0.5, 0)
    np.testing.assert_allclose(model[1].weight.data, want, rtol=1e-6)
    regularizers.L1(0.5, proximal=True).apply_proximal(model, 1.0)
    np.testing.assert_allclose(model[0].weight.data, want, rtol=1e-6)


def test_include_chooses_what_is_penalized():
    model = network(norm=True)
    everything = regularizers.L1(1.0, include="all").penalty(model)
    only_biases = regularizers.L1(1.0, include=lambda name, p: name.endswith("bias")).penalty(model)
    assert everything == pytest.approx(sum(np.abs(p.data).sum() for p in model.parameters()), rel=1e-5)
    assert only_biases == pytest.approx(
        sum(np.abs(p.data).sum() for n, p in model.named_parameters() if n.endswith("bias")), rel=1e-5
    )
    model.requires_grad_(False)
    assert regularizers.L1(1.0).penalty(model) == 0.0


def test_clip_norm_bounds_the_update():
    x, y = stripes(9)
    train = trainer(clip_norm=1e-3, lr=1.0, momentum=0.0)
    before = weights(train.model)
    train.step(100 * x, y)
    moved = np.sqrt(sum(((v - before[k]) ** 2).sum() for k, v in train.model.state_dict().items()))
    assert 0.9e-3 < moved <= 1.0001e-3


def test_frozen_layers_stay():
    model = network()
    model[0].weight.grad[...] = 1e6  # of some step before
    model[0].requires_grad_(False)
    frozen = model[0].weight.data.copy()
    train, alone = trainer(model, clip_norm=10.0), trainer(clip_norm=10.0)
    alone.model[0].requires_grad_(False)
    x, y = stripes(9)
    for _ in range(2):
        assert train.step(x, y) == alone.step(x, y)
    np.testing.assert_array_equal(model[0].weight.data, frozen)
    assert not model[0].weight.grad.any()
    assert_same(model, alone.model.state_dict())  # what lay there reached neither the norm nor an update
    model[0].requires_grad_(True)
    train.step(x, y)
    assert (model[0].weight.data != frozen).any()


def test_the_model_may_change_between_steps():
    """A traced graph never outlives what it was traced of."""
    train = trainer()
    x, y = stripes(9)
    train.step(x, y)
    assert len(train._traces) == 1
    train.model.double()
    assert isinstance(train.step(x.astype(np.float64), y), float)
    train.model.float()
    train.step(x, y)
    train.model.add_module("2", nn.Tanh())
    want = train.loss(train.model(x), y)
    assert train.step(x, y) == pytest.approx(want, rel=1e-5)
    for size in range(1, 12):  # old graphs are let go
        train.step(x[:size], y[:size])
    assert len(train._traces) <= 8


def test_an_empty_batch_is_no_loss():
    train = trainer(momentum=0.0)
    before = weights(train.model)
    x, y = stripes(0)
    assert train.step(x, y) == 0.0
    assert_same(train.model, before)


BAD_STEPS = {
    "a list": ([1.0], np.zeros(1, int), TypeError, ("x", "list")),
    "targets missing": (stripes(4)[0], None, TypeError, ("y", "NoneType")),
    "bytes": (stripes(4)[0].astype(np.uint8), stripes(4)[1], TypeError, ("x", "uint8", "float32")),
    "float64": (stripes(4)[0].astype(np.float64), stripes(4)[1], TypeError, ("x", "float64", "float32")),
    "float targets": (stripes(4)[0], np.zeros(4), TypeError, ("targets", "float64", "integer")),
    "lengths": (stripes(4)[0], stripes(3)[1], ValueError, ("targets", "(3,)", "(4,)")),
    "no class": (stripes(4)[0], np.full(4, 3), ValueError, ("targets", "3")),
    "channels": (normal((4, 2, 8, 8)), stripes(4)[1], ValueError, ("x", "2", "1")),
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_a_refused_step_changes_no_weight(name):
    x, y, error, words = BAD_STEPS[name]
    train = trainer()
    before = weights(train.model)
    with raises(error, *words):
        train.step(x, y)
    assert_same(train.model, before)
    assert np.isfinite(train.step(*stripes(4)))


def test_bad_arguments():
    model = network()
    optimizer = optim.SGD(model.parameters(), 0.1)
    other = optim.SGD(network().parameters(), 0.1)
    loss = losses.CrossEntropyLoss()
    with raises(TypeError, "model", "int"):
        pycnn.Trainer(3, loss, optimizer)
    with raises(TypeError, "loss", "function"):
        pycnn.Trainer(model, lambda a, b: 0, optimizer)
    with raises(TypeError, "optimizer", "float"):
        pycnn.Trainer(model, loss, 0.1)
    with raises(TypeError, "regularizer", "float"):
        pycnn.Trainer(model, loss, optimizer, regularizer=1e-4)
    with raises(ValueError, "scheduler", "another optimizer"):
        pycnn.Trainer(model, loss, optimizer, scheduler=lr_scheduler.StepLR(other, 1))
    with raises(ValueError, "loss", "none", "mean"):
        pycnn.Trainer(model, losses.MSELoss(reduction="none"), optimizer)
    with raises(ValueError, "micro_batch_size", "0"):
        pycnn.Trainer(model, loss, optimizer, micro_batch_size=0)


# Fit.


def fit(train, n=90, **options):
    settings = {"epochs": 2, "batch_size": 16, "progress": False, **options}
    return train.fit(*stripes(n), **settings)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop])
def test_fit_learns(kind):
    train = trainer(kind=kind, lr=0.05 if kind is optim.SGD else 0.005)
    history = fit(train, n=300, epochs=6, validation_data=stripes(100, seed=9))
    assert history["val_accuracy"][-1] > 0.95
    assert history["loss"][-1] < history["loss"][0] / 2
    assert train.evaluate(*stripes(100, seed=9))["accuracy"] == history["val_accuracy"][-1]


def test_history_has_a_number_an_epoch_for_everything():
    history = fit(trainer(), epochs=3, validation_data=stripes(20, seed=1))
    names = ["loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds", "images_per_second"]
    assert list(history) == names
    assert all(len(values) == 3 for values in history.values())
    assert min(history["seconds"]) > 0 and min(history["images_per_second"]) > 0


@pytest.mark.parametrize("batch_size", [1, 16, 90])
def test_the_seed_decides_everything(batch_size):
    def run(seed, threads):
        pycnn.set_num_threads(threads)
        model = network(dropout=0.3, norm=True)
        pycnn.manual_seed(seed + 100)  # what is drawn elsewhere does not matter
        options = {"seed": seed, "transform": data.RandomAffine(20), "batch_size": batch_size, "epochs": 1}
        fit(trainer(model), n=90, **options)
        return weights(model)

    threads = pycnn.get_num_threads()
    try:
        first, again, other = run(3, 1), run(3, 2), run(4, 1)
    finally:
        pycnn.set_num_threads(threads)
    for name in first:
        np.testing.assert_array_equal(first[name], again[name], err_msg=name)
    assert any((first[name] != other[name]).any() for name in first)


def test_two_fits_are_one():
    once, twice = trainer(network(dropout=0.3)), trainer(network(dropout=0.3))
    fit(once, epochs=2)
    fit(twice, epochs=1)
    fit(twice, epochs=1)
    assert once.epoch == twice.epoch == 2
    assert_same(twice.model, weights(once.model))


def test_every_source_of_batches_trains_alike():
    x, y = stripes(50)
    sources = [
        ((x, y), {}),
        ((data.ArrayDataset(x, y),), {}),
        ((data.DataLoader((x, y), 16, shuffle=True, seed=5),), {}),
    ]
    found = []
    for arguments, options in sources:
        train = trainer()
        train.fit(*arguments, epochs=2, batch_size=16, seed=5, progress=False, **options)
        found.append(weights(train.model))
    for other in found[1:]:
        for name, value in found[0].items():
            np.testing.assert_array_equal(other[name], value)


def test_features_and_float64_train_too():
    x, y = normal((40, 5), np.float64), normal((40, 1), np.float64, seed=1)
    model = nn.Sequential(nn.Linear(5, 1)).double()
    train = trainer(model, losses.MSELoss(), momentum=0.0)
    history = train.fit(x, y, epochs=40, batch_size=40, progress=False)
    assert list(history) == ["loss", "lr", "seconds", "images_per_second"]
    solution, *_ = np.linalg.lstsq(np.hstack([x, np.ones((40, 1))]), y, rcond=None)
    best = np.mean((np.hstack([x, np.ones((40, 1))]) @ solution - y) ** 2)
    assert best <= history["loss"][-1] < 1.05 * best


def test_bytes_are_images_from_0_to_1():
    x, y = stripes(30)
    pixels = np.clip(100 * x + 128, 0, 255).astype(np.uint8)
    floats = pixels.astype(np.float32) / 255
    of_bytes, of_floats = trainer(), trainer()
    of_bytes.fit(pixels, y, progress=False)
    of_floats.fit(floats, y, progress=False)
    for name, value in of_floats.model.state_dict().items():
        assert_close(of_bytes.model.state_dict()[name], value, 1e-5)
    np.testing.assert_allclose(of_bytes.predict(pixels), of_bytes.predict(floats), rtol=1e-4, atol=1e-5)


def test_progress_shows_loss_accuracy_and_speed(capsys):
    fit(trainer(), epochs=2, progress=True, validation_data=stripes(20))
    shown = capsys.readouterr().err
    for pattern in (
        r"epoch 1/2",
        r"epoch 2/2",
        r"90/90",
        r"images/s",
        r"loss=\d",
        r"[^_]accuracy=\d",
        r"val_accuracy=\d",
    ):
        assert re.search(pattern, shown), pattern
    fit(trainer())
    assert capsys.readouterr().err == ""


def test_modes_are_kept():
    """fit puts the model into training mode; what was frozen in evaluation mode below it stays so."""
    train = trainer(network(norm=True))
    train.model.eval()
    fit(train, epochs=1, validation_data=stripes(10))
    assert all(module.training for module in train.model.modules())
    train.model[1].eval()
    running = train.model[1].running_mean.copy()
    fit(train, epochs=1, validation_data=stripes(10))
    assert train.model.training and not train.model[1].training
    np.testing.assert_array_equal(train.model[1].running_mean, running)


@pytest.mark.parametrize("when", ["batch", "epoch"])
def test_an_interruption_leaves_a_usable_model(when):
    class Interrupt(pycnn.callbacks.Callback):
        ended = False

        def on_batch_end(self, trainer, batch, logs):
            if when == "batch" and batch == 2:
                raise KeyboardInterrupt

        def on_epoch_end(self, trainer, epoch, logs):
            raise KeyboardInterrupt

        def on_fit_end(self, trainer):
            self.ended = True

    train, interrupt = trainer(network(norm=True)), Interrupt()
    before = weights(train.model)
    with pytest.raises(KeyboardInterrupt):
        fit(train, callbacks=[interrupt], validation_data=stripes(10))
    assert interrupt.ended
    assert all(np.isfinite(value).all() for value in train.model.state_dict().values())
    assert any((value != before[name]).any() for name, value in train.model.state_dict().items())
    assert len(fit(train, epochs=2)["loss"]) == 2


# Schedules.


def test_schedules_step_by_epoch_or_by_batch():
    train = trainer(lr=0.4, momentum=0.0)
    train.scheduler = lr_scheduler.StepLR(train.optimizer, 1, gamma=0.5)
    assert fit(train, epochs=3)["lr"] == pytest.approx([0.4, 0.2, 0.1])
    assert train.optimizer.lr == pytest.approx(0.05)

    train = trainer()
    train.scheduler = lr_scheduler.OneCycleLR(train.optimizer, 0.1, epochs=2, steps_per_epoch=6)
    fit(train, epochs=2)
    assert train.scheduler.last_epoch == 12

    train = trainer(lr=1e-3)
    train.scheduler = lr_scheduler.ExponentialLR(train.optimizer, 0.5)
    train.scheduler.per_batch = True
    fit(train, epochs=1)
    assert train.optimizer.lr == pytest.approx(1e-3 * 0.5**6)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateaus_watch_the_validation(mode):
    train = trainer(lr=0.0)  # nothing changes, so nothing improves after the first epoch
    train.scheduler = lr_scheduler.ReduceLROnPlateau(train.optimizer, mode, patience=0, factor=0.5, eps=0)
    train.optimizer.lr = 1e-12
    fit(train, epochs=3, validation_data=stripes(20))
    assert train.optimizer.lr == pytest.approx(0.25e-12)


# Evaluate and predict.


@pytest.mark.parametrize("name", LOSSES)
def test_evaluation_does_not_depend_on_the_batch(name):
    make, _, kind = LOSSES[name]
    x, y = stripes(31)
    if kind != "classes":
        y = normal((31, 3), seed=3)
    if kind == "parts":
        y = (y > 0).astype(np.float32)
    train = trainer(loss=make())
    whole = train.evaluate(x, y, batch_size=31)
    assert train.evaluate(x, y, batch_size=4) == pytest.approx(whole, rel=1e-4)
    assert whole["loss"] == pytest.approx(make()(train.model(x), y), rel=1e-5)
    output = train.model(x)
    if kind == "classes":
        kept = y != getattr(train.loss, "ignore_index", -100)
        assert whole["accuracy"] == pytest.approx((output.argmax(1) == y)[kept].mean())
    elif kind == "parts":
        assert whole["accuracy"] == pytest.approx(((output > 0) == (y > 0.5)).mean())
    else:
        assert "accuracy" not in whole


def test_evaluation_and_prediction_are_in_evaluation_mode_and_change_nothing():
    train = trainer(network(dropout=0.9, norm=True))
    train.step(*stripes(20))
    before = weights(train.model)
    x, y = stripes(30, seed=2)
    first = train.predict(x)
    np.testing.assert_array_equal(train.predict(x), first)
    assert train.evaluate(x, y) == train.evaluate(x, y)
    assert_same(train.model, before)
    assert all(module.training for module in train.model.modules())
    train.model.eval()
    np.testing.assert_allclose(first, train.model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 20])
def test_prediction_in_batches(n):
    train = trainer()
    x = stripes(n)[0]
    outputs = train.predict(x, batch_size=8)
    assert outputs.shape == (n, 3) and outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, train.model(x), rtol=1e-5, atol=1e-6)


def test_evaluation_of_nothing():
    assert trainer().evaluate(*stripes(0)) == {"loss": 0.0}


def test_bad_data():
    train = trainer()
    x, y = stripes(6)
    with raises(TypeError, "y", "NoneType"):
        train.fit(x, progress=False)
    with raises(TypeError, "x", "list"):
        train.fit([1, 2], y, progress=False)
    with raises(ValueError, "x", "DataLoader"):
        train.fit(data.DataLoader((x, y)), y, progress=False)
    with raises(ValueError, "batch_size", "0"):
        train.fit(x, y, batch_size=0, progress=False)
    with raises(ValueError, "y", "(5,)"):
        train.fit(normal((6, 64)), y[:5], progress=False)
    with raises(ValueError, "transform", "(6, 64)"):
        train.fit(normal((6, 64)), y, transform=data.RandomAffine(5), progress=False)
    with raises(TypeError, "callbacks", "str"):
        train.fit(x, y, callbacks=["log.csv"], progress=False)
    with raises(TypeError, "x", "list"):
        train.predict([1.0])


def test_a_network_with_two_outputs_is_refused():
    class Two(nn.Module):
        def forward(self, x):
            return x, x * 2

    model = nn.Sequential(nn.Linear(3, 3), Two())
    with raises(TypeError, "model", "tuple"):
        trainer(model).step(normal((2, 3)), np.zeros(2, int))
