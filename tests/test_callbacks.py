"""Callbacks: when they are called, what checkpoints hold, when training stops, what the log says."""

import csv
import math

import numpy as np
import pytest

import pycnn
from helpers import normal, raises
from pycnn import losses, nn, optim
from pycnn.callbacks import Callback, CSVLogger, EarlyStopping, ModelCheckpoint


def trainer(lr=0.1):
    pycnn.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 3))
    return pycnn.Trainer(model, losses.CrossEntropyLoss(), optim.SGD(model.parameters(), lr))


X, Y = normal((20, 4)), np.arange(20) % 3


def fit(train, *callbacks, epochs=3, **options):
    return train.fit(X, Y, epochs=epochs, batch_size=8, progress=False, callbacks=callbacks, **options)


class Says(Callback):
    """Pretends that the validation went so, an epoch after the other."""

    def __init__(self, *values, name="val_accuracy"):
        self.values, self.name = values, name

    def on_epoch_end(self, trainer, epoch, logs):
        logs[self.name] = self.values[epoch - 1]


class Remember(Callback):
    """The weights after each epoch."""

    def on_fit_begin(self, trainer):
        self.states = []

    def on_epoch_end(self, trainer, epoch, logs):
        self.states.append(trainer.model.state_dict())


def assert_same(state, other):
    assert state.keys() == other.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def stored(path):
    model = nn.Sequential(nn.Linear(4, 3))
    pycnn.load_weights(model, path)
    return model.state_dict()


def test_order_of_the_calls():
    class Order(Callback):
        def __init__(self):
            self.calls = []

        def on_fit_begin(self, trainer):
            self.calls.append("begin")

        def on_fit_end(self, trainer):
            self.calls.append("end")

        def on_epoch_begin(self, trainer, epoch):
            self.calls.append(f"epoch {epoch}")

        def on_epoch_end(self, trainer, epoch, logs):
            assert {"loss", "accuracy", "lr"} <= logs.keys()
            self.calls.append(f"epoch {epoch} ends")

        def on_batch_end(self, trainer, batch, logs):
            assert logs["loss"] > 0
            self.calls.append(batch)

    order, train = Order(), trainer()
    fit(train, order, epochs=2)
    want = ["begin", "epoch 1", 0, 1, 2, "epoch 1 ends", "epoch 2", 0, 1, 2, "epoch 2 ends", "end"]
    assert order.calls == want
    fit(train, order, epochs=1)
    assert "epoch 3" in order.calls, "a second fit goes on counting"


def test_checkpoint_keeps_the_best(tmp_path):
    path = tmp_path / "best.safetensors"
    remember, checkpoint = Remember(), ModelCheckpoint(path)
    fit(trainer(), Says(0.5, 0.8, 0.8, 0.7), remember, checkpoint, epochs=4)
    assert_same(stored(path), remember.states[1])
    assert checkpoint.best == 0.8


@pytest.mark.parametrize(("monitor", "mode", "best"), [("val_loss", "auto", 2), ("val_loss", "max", 0)])
def test_checkpoint_modes(tmp_path, monitor, mode, best):
    path = tmp_path / "best.safetensors"
    remember = Remember()
    checkpoint = ModelCheckpoint(path, monitor, mode)
    fit(trainer(), Says(0.5, math.nan, 0.3, name=monitor), remember, checkpoint)
    assert_same(stored(path), remember.states[best])


def test_checkpoint_of_every_epoch(tmp_path):
    remember = Remember()
    pattern = tmp_path / "at-{epoch:02d}-{val_accuracy:.1f}.safetensors"
    fit(trainer(), Says(0.3, 0.2, 0.1), remember, ModelCheckpoint(pattern, save_best_only=False))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "at-01-0.3.safetensors",
        "at-02-0.2.safetensors",
        "at-03-0.1.safetensors",
    ]
    assert_same(stored(tmp_path / "at-02-0.2.safetensors"), remember.states[1])


def test_early_stopping_restores_the_best():
    remember, stop = Remember(), EarlyStopping("val_loss", patience=1)
    train = trainer()
    history = fit(train, Says(0.9, 0.5, 0.6, 0.55, 0.1, name="val_loss"), remember, stop, epochs=5)
    assert len(history["loss"]) == 4
    assert (stop.best_epoch, stop.stopped_epoch, stop.best) == (2, 4, 0.5)
    assert_same(train.model.state_dict(), remember.states[1])


def test_early_stopping_may_keep_the_last():
    remember, stop = Remember(), EarlyStopping("val_loss", patience=0, restore_best=False)
    train = trainer()
    fit(train, Says(0.9, 1.0, name="val_loss"), remember, stop, epochs=2)
    assert_same(train.model.state_dict(), remember.states[-1])


def test_early_stopping_wants_more_than_min_delta():
    stop = EarlyStopping("val_accuracy", patience=1, min_delta=0.1, restore_best=False)
    history = fit(trainer(), Says(0.5, 0.55, 0.59, 0.9), stop, epochs=4)
    assert len(history["loss"]) == 3 and stop.best_epoch == 1
    assert len(fit(trainer(), Says(0.5, 0.7, 0.9, 0.8), stop, epochs=4)["loss"]) == 4, "it starts afresh"


def test_csv_log(tmp_path):
    path = tmp_path / "log.csv"
    train = trainer()
    history = fit(train, CSVLogger(path), epochs=2, validation_data=(X, Y))
    fit(train, CSVLogger(path, append=True), epochs=1, validation_data=(X, Y))
    rows = list(csv.DictReader(path.open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert list(rows[0]) == ["epoch", *history]
    assert [float(row["val_loss"]) for row in rows[:2]] == history["val_loss"]
    fit(trainer(), CSVLogger(path), epochs=1)
    assert len(list(csv.DictReader(path.open()))) == 1


def test_refusals(tmp_path):
    with raises(ValueError, "monitor", "val_accuracy", "loss"):
        fit(trainer(), ModelCheckpoint(tmp_path / "a.safetensors"))
    with raises(ValueError, "monitor", "val_loss"):
        fit(trainer(), EarlyStopping())
    with raises(ValueError, "path", "pth"):
        ModelCheckpoint(tmp_path / "a.pth")
    with raises(ValueError, "mode", "best", "auto"):
        ModelCheckpoint(tmp_path / "a.safetensors", mode="best")
    with raises(ValueError, "patience", "-1"):
        EarlyStopping(patience=-1)
