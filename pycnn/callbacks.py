"""What may be done between the epochs of `Trainer.fit`.

Epochs are numbered from 1. `logs` holds loss, accuracy, val_loss, val_accuracy, lr, seconds and images_per_second, as
far as they are known.
"""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pycnn._arguments import choice, integer, real
from pycnn.serialization import check_path, save

if TYPE_CHECKING:
    from pycnn.trainer import Trainer

Logs = dict[str, float]


class Callback:
    """Base of the callbacks: override what is needed. `trainer.should_stop = True` ends `fit` after the epoch."""

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, also when an exception ends `fit`."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Before an epoch's first batch."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: Logs) -> None:
        """After an epoch, its validation included."""

    def on_batch_end(self, trainer: Trainer, batch: int, logs: Logs) -> None:
        """After an update; batches are numbered from 0 in each epoch, logs are of the epoch so far."""


class _Monitor:
    """Follows one quantity of the logs and knows its best value."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        choice(mode, "mode", ("auto", "min", "max"))
        self.name = monitor
        self.rises = mode == "max" or (mode == "auto" and monitor.endswith("accuracy"))
        self.min_delta = min_delta
        self.best = math.nan

    def improves(self, logs: Logs) -> bool:
        if self.name not in logs:
            raise ValueError(f"monitor: got {self.name!r}, expected one of {', '.join(logs)}")
        value = logs[self.name]
        gain = value - self.best if self.rises else self.best - value
        better = gain > self.min_delta or (math.isnan(self.best) and not math.isnan(value))
        if better:
            self.best = value
        return better


class ModelCheckpoint(Callback):
    """Saves the model's weights after each epoch, or only when a monitored quantity is better than ever.

    The file is replaced in one go: it is always a whole one.

    Args:
        path: name of the file, ending in .safetensors; '{epoch}' and the names of logs in braces are filled in, as in
            'digits-{epoch:02d}-{val_accuracy:.4f}.safetensors'.
        monitor: name of the quantity.
        mode: 'min' or 'max' is better; 'auto' takes 'max' for names that end in 'accuracy'.
        save_best_only: False saves after each epoch.

    Raises:
        ValueError: at the end of the first epoch, if the logs lack the quantity.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_accuracy",
        mode: str = "auto",
        save_best_only: bool = True,
    ) -> None:
        self.path = str(check_path(path))
        self.save_best_only = bool(save_best_only)
        self._monitor = _Monitor(monitor, mode)

    @property
    def best(self) -> float:
        """The best value so far, NaN before the first."""
        return self._monitor.best

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: Logs) -> None:
        if not self.save_best_only or self._monitor.improves(logs):
            save(trainer.model, self.path.format(epoch=epoch, **logs))


class EarlyStopping(Callback):
    """Ends training when a monitored quantity has not improved for `patience` epochs.

    Args:
        monitor: name of the quantity.
        patience: epochs without improvement that are borne.
        min_delta: what counts as improvement must be larger than this.
        restore_best: at the end, give the model back the weights of its best epoch.
        mode: 'min' or 'max' is better; 'auto' takes 'max' for names that end in 'accuracy'.

    Raises:
        ValueError: at the end of the first epoch, if the logs lack the quantity.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: str = "auto",
    ) -> None:
        self.patience = integer(patience, "patience", 0)
        self.restore_best = bool(restore_best)
        self._arguments = (monitor, mode, real(min_delta, "min_delta", 0.0))
        self._start()

    def _start(self) -> None:
        self._monitor = _Monitor(*self._arguments)
        self.best_epoch: int | None = None
        self.stopped_epoch: int | None = None
        self._waited = 0
        self._best_state: dict[str, Any] | None = None

    @property
    def best(self) -> float:
        """The best value so far, NaN before the first."""
        return self._monitor.best

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._start()

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: Logs) -> None:
        if self._monitor.improves(logs):
            self._waited, self.best_epoch = 0, epoch
            self._best_state = trainer.model.state_dict() if self.restore_best else None
            return
        self._waited += 1
        if self._waited > self.patience:
            self.stopped_epoch = epoch
            trainer.should_stop = True

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._best_state is not None:
            trainer.model.load_state_dict(self._best_state)
            self._best_state = None


class CSVLogger(Callback):
    """Writes a line an epoch into a CSV file: epoch and logs, under a header.

    Args:
        path: name of the file.
        append: go on with a file that is there, without another header.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = Path(path)
        self.append = bool(append)
        self._begun = False

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._begun = self.append and self.path.is_file() and self.path.stat().st_size > 0

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: Logs) -> None:
        with self.path.open("a" if self._begun else "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["epoch", *logs])
            if not self._begun:
                writer.writeheader()
            writer.writerow({"epoch": epoch, **logs})
        self._begun = True
