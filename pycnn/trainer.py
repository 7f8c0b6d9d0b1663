"""Training: a network, a loss, an optimizer, and the loop around them."""

from __future__ import annotations

import itertools
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from pycnn import random
from pycnn._arguments import integer, real
from pycnn._batches import count_images, make_batches, slices
from pycnn._core import Arena
from pycnn._modes import evaluation
from pycnn._training import Step
from pycnn.callbacks import Callback
from pycnn.losses import Loss
from pycnn.nn import Module
from pycnn.optim import Optimizer, WeightAverage
from pycnn.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from pycnn.parameter import Array, StructureEpoch
from pycnn.regularizers import Regularizer
from pycnn.tracing import Tensor, Traced

_MICRO_BATCH = 256  # images that pass through the network at once, unless the user says otherwise
_RECOMPUTE = {"normal": "cheap", "low": "most"}
_TRACES_KEPT = 8  # full and last batches in training and evaluation, each perhaps in two sizes of part


class History(dict[str, list[float]]):
    """What `fit` recorded: for each quantity a list with one number an epoch.

    loss (with the penalty), accuracy (of classification), val_loss, val_accuracy, lr, seconds (of training, without
    validation), images_per_second."""

    def append(self, logs: dict[str, float]) -> None:
        for name, value in logs.items():
            self.setdefault(name, []).append(value)


class _Purpose(NamedTuple):
    """What a traced graph gives."""

    loss: bool
    output: bool
    backward: bool


_STEP = _Purpose(loss=True, output=False, backward=True)
_WATCHED_STEP = _Purpose(loss=True, output=True, backward=True)
_EVALUATION = _Purpose(loss=True, output=True, backward=False)
_PREDICTION = _Purpose(loss=False, output=True, backward=False)


class _Meter:
    """Loss and accuracy over several batches."""

    def __init__(self, loss: Loss) -> None:
        self.mean = loss.reduction == "mean"
        self.total = self.divisor = 0.0
        self.hits = self.counted = 0
        self.classifies = False
        self.images = 0

    def add(self, value: float, divisor: float, hits: tuple[int, int] | None, images: int) -> None:
        if divisor or not self.mean:  # a mean over no targets is NaN, and has no say
            self.total += value * divisor if self.mean else value
        self.divisor += divisor
        self.images += images
        if hits is not None:
            self.classifies = True
            self.hits += hits[0]
            self.counted += hits[1]

    def logs(self, prefix: str = "") -> dict[str, float]:
        scale = self.divisor if self.mean else 1.0
        nothing = math.nan if self.images else 0.0
        logs = {f"{prefix}loss": self.total / scale if scale else nothing}
        if self.classifies:
            logs[f"{prefix}accuracy"] = self.hits / self.counted if self.counted else 0.0
        return logs


class Trainer:
    """Trains a network with one input and one output.

    Network and loss are traced into one graph at the first batch of each shape, and from then on run as that.

    Args:
        model: the network.
        loss: with reduction 'mean' or 'sum'.
        optimizer: of the model's parameters.
        regularizer: a penalty, added to loss and gradient.
        scheduler: takes a step per epoch of `fit`, or, if its `per_batch` is True, per update.
        clip_norm: bound for the common norm of all gradients, or None.
        average: a moving average of weights that each update advances, or None.
        micro_batch_size: how many images pass through the network at once. Larger batches are cut into equal parts
            whose gradients add up to the whole batch's, so that memory stays bounded; batch normalization then works
            by parts. 256 by default.
        memory: 'normal', or 'low' to keep few results of forward and compute the others again when backward needs
            them: the same bits, for at most the time of one forward pass.

    Attributes:
        epoch: epochs done by all calls of `fit`.
        history: of the last `fit`.
        should_stop: set it in a callback to end `fit` after the epoch.

    Raises:
        TypeError, ValueError: naming an argument that is of another kind or out of range.
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Optimizer,
        regularizer: Regularizer | None = None,
        scheduler: LRScheduler | None = None,
        clip_norm: float | None = None,
        micro_batch_size: int | None = None,
        average: WeightAverage | None = None,
        memory: str = "normal",
    ) -> None:
        _check("model", model, Module)
        _check("loss", loss, Loss)
        _check("optimizer", optimizer, Optimizer)
        if regularizer is not None:
            _check("regularizer", regularizer, Regularizer)
        if scheduler is not None:
            _check("scheduler", scheduler, LRScheduler)
            if scheduler.optimizer is not optimizer:
                raise ValueError("scheduler: got one of another optimizer")
        if loss.reduction == "none":
            raise ValueError("loss: got reduction 'none', expected 'mean' or 'sum'")
        if memory not in _RECOMPUTE:
            raise ValueError(f"memory: got {memory!r}, expected 'normal' or 'low'")
        self.memory = memory
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.regularizer = regularizer
        self.scheduler = scheduler
        self.clip_norm = None if clip_norm is None else real(clip_norm, "clip_norm", 0.0)
        self.micro_batch_size = (
            _MICRO_BATCH if micro_batch_size is None else integer(micro_batch_size, "micro_batch_size", 1)
        )
        if average is not None:
            _check("average", average, WeightAverage)
        self.average = average
        self._step = Step(model, optimizer, regularizer, self.clip_norm, average)
        self.epoch = 0
        self.history = History()
        self.should_stop = False
        self._calls = itertools.count()  # numbers the dropout masks of `fit`
        self._traces: OrderedDict[Any, Traced] = OrderedDict()
        self._arena = Arena()  # a step is one call, so that one is enough for all traces
        self._structure: Any = None
        self._structure_epoch: int | None = None

    # -- one update

    def step(self, x: Array, y: Array) -> float:
        """One update by one batch, in the mode that the model is in.

        Args:
            x: the network's input, (n, ...), of its dtype. y: targets, as the loss takes them.

        Returns:
            The loss before the update, with the penalty.

        Raises:
            TypeError, ValueError: x or targets of the wrong dtype, shape or value; nothing is updated then.
        """
        return self._update(x, y, _STEP, random.next_call)[0]

    def _update(
        self, x: Array, y: Array, purpose: _Purpose, next_call: Callable[[], tuple[int, int]]
    ) -> tuple[float, float, tuple[int, int] | None]:
        """Returns the loss with the penalty, the loss's divisor, and hits, if `purpose` has the output."""
        value, divisor, hits = self._run(x, y, purpose, next_call)
        self._step.count()
        if self.scheduler is not None and self.scheduler.per_batch:
            self.scheduler.step()
        return value, divisor, hits

    def _run(
        self, x: Array, y: Array, purpose: _Purpose, next_call: Callable[[], tuple[int, int]]
    ) -> tuple[float, float, tuple[int, int] | None]:
        """Forward, part by part, and if `purpose` has it, backward and, with the last part, the update."""
        _check("x", x, np.ndarray)
        _check("y", y, np.ndarray)
        parts = self._parts(len(x)) if x.ndim and y.ndim and len(x) == len(y) else [slice(None)]
        divisor = self.loss.divisor(y)
        value, hits = 0.0, None
        for number, part in enumerate(parts):
            part_x, part_y = (x, y) if len(parts) == 1 else (x[part], y[part])
            share = 1.0
            if len(parts) > 1 and self.loss.reduction == "mean":
                share = self.loss.divisor(part_y) / divisor if divisor else 1.0
            traced = self._find_trace(purpose, part_x, part_y)
            if purpose.backward:
                last = number == len(parts) - 1
                results, penalty, _ = traced.runner.train(
                    (part_x, part_y), self._step.prepare(), *next_call(), share, number > 0, not last
                )
                value += penalty
            else:
                results = traced.forward((part_x, part_y), *next_call())
            if share:  # a part in which no target counts has a mean of NaN, and no say
                value += share * float(results[0])
            found = self.loss.hits(results[1], part_y) if purpose.output else None
            if found is not None:
                hits = found if hits is None else (hits[0] + found[0], hits[1] + found[1])
        return value, divisor, hits

    def _parts(self, images: int) -> list[slice]:
        """A batch in parts of nearly equal size, none above the micro-batch."""
        count = max(1, -(-images // self.micro_batch_size))
        edges = [images * i // count for i in range(count + 1)]
        return [slice(first, last) for first, last in itertools.pairwise(edges)]

    # -- graphs

    def _find_trace(self, purpose: _Purpose, x: Array, y: Array | None) -> Traced:
        key = (purpose, x.shape, None if y is None else y.shape, x.dtype)
        traced = self._traces.get((key, self._current_structure()))
        if traced is None:
            traced = self._trace(purpose, x, y)
            while len(self._traces) >= _TRACES_KEPT:
                self._traces.popitem(last=False)
            self._traces[key, self._current_structure()] = traced  # asked again: forward may have set attributes
        else:
            self._traces.move_to_end((key, self._structure))
        return traced

    def _current_structure(self) -> Any:
        if self._structure_epoch != StructureEpoch.value:
            self._structure, self._structure_epoch = self.model._structure(), StructureEpoch.value
        return self._structure

    def _trace(self, purpose: _Purpose, x: Array, y: Array | None) -> Traced:
        dtype = self.model.dtype
        if dtype is None:
            dtype = x.dtype.newbyteorder("=")
        tracer, output = self.model.trace((x.shape,), str(dtype), input_gradients=False)
        if not isinstance(output, Tensor):
            raise TypeError(f"model: its forward returned {type(output).__name__}, expected one tensor")
        results = []
        if purpose.loss:
            assert y is not None
            results.append(self.loss.trace(tracer, output, self.loss.input_targets(tracer, y.shape)))
        if purpose.output:
            results.append(output)
        train = purpose.backward
        return Traced(
            tracer,
            tuple(results),
            copy=False,
            backward=train,
            repeat=False,
            watch=train,
            recompute=_RECOMPUTE[self.memory],
            arena=self._arena,
        )

    # -- many

    def fit(
        self,
        x: Any,
        y: Array | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: Any = None,
        callbacks: Iterable[Callback] = (),
        progress: bool = True,
        shuffle: bool = True,
        seed: int = 0,
        transform: Any = None,
    ) -> History:
        """Trains for a number of epochs.

        Args:
            x: the inputs, (n, ...); or a data set of `pycnn.data`, or a DataLoader, then without y. Images of bytes
                are taken from 0..255 to 0..1.
            y: the targets.
            epochs: how often all of it is gone through. A second `fit` goes on counting where the first ended.
            batch_size: images an update; all of them is plain gradient descent. Not used with a DataLoader.
            validation_data: a pair (x, y), a data set or a DataLoader, evaluated after each epoch.
            callbacks: see `pycnn.callbacks`.
            progress: show a bar.
            shuffle, seed: a new order each epoch. Order, `transform` and dropout follow from the seed and the numbers
                of epoch and batch alone, so that from equal weights a run repeats to the bit.
            transform: augmentation of training images, transform(x, rng) of `pycnn.data`.

        Returns:
            The history, one number an epoch for each quantity.

        The model is put into training mode if it is not; submodules in evaluation mode stay so. An interruption
        (KeyboardInterrupt) ends the callbacks in order and goes on to the caller; the model is then as the last update
        left it.
        """
        integer(epochs, "epochs", 0)
        integer(seed, "seed", 0)
        batches = make_batches(x, y, batch_size, bool(shuffle), seed, transform)
        listed = list(callbacks)
        for callback in listed:
            _check("callbacks", callback, Callback)
        if not self.model.training:
            self.model.train()
        self.history, self.should_stop = History(), False
        try:
            for callback in listed:
                callback.on_fit_begin(self)
            for number in range(epochs):
                if batches is not x:
                    batches.set_epoch(self.epoch)
                text = f"epoch {number + 1}/{epochs}"
                logs = self._fit_epoch(batches, validation_data, listed, text if progress else None, seed)
                self.epoch += 1
                self.history.append(logs)
                for callback in listed:
                    callback.on_epoch_end(self, self.epoch, logs)
                self._step_schedule(logs)
                if self.should_stop:
                    break
        finally:
            for callback in listed:
                callback.on_fit_end(self)
        return self.history

    def _fit_epoch(
        self, batches: Any, validation_data: Any, callbacks: list[Callback], text: str | None, seed: int
    ) -> dict[str, float]:
        for callback in callbacks:
            callback.on_epoch_begin(self, self.epoch + 1)
        meter = _Meter(self.loss)
        start = time.perf_counter()
        with _Bar(text, count_images(batches)) as bar, closing(_generate(batches)) as generated:
            for number, (x, y) in enumerate(generated):
                lr = self.optimizer.lr
                value, divisor, hits = self._update(x, y, _WATCHED_STEP, lambda: (seed, next(self._calls)))
                meter.add(value, divisor, hits, len(x))
                logs = meter.logs()
                bar.advance(len(x), logs)
                for callback in callbacks:
                    callback.on_batch_end(self, number, logs)
            seconds = time.perf_counter() - start
            logs = meter.logs()
            if validation_data is not None:
                x, y = validation_data if isinstance(validation_data, tuple) else (validation_data, None)
                logs |= self._evaluate(x, y, self.micro_batch_size).logs("val_")
                bar.advance(0, logs)
        logs["lr"] = lr if meter.images else self.optimizer.lr
        logs["seconds"] = seconds
        logs["images_per_second"] = meter.images / seconds
        return logs

    def _step_schedule(self, logs: dict[str, float]) -> None:
        if isinstance(self.scheduler, ReduceLROnPlateau):
            name = "loss" if self.scheduler.mode == "min" else "accuracy"
            self.scheduler.step(logs.get(f"val_{name}", logs.get(name)))
        elif self.scheduler is not None and not self.scheduler.per_batch:
            self.scheduler.step()

    def evaluate(self, x: Any, y: Array | None = None, batch_size: int = 256) -> dict[str, float]:
        """Loss (without penalty) and, of classification, accuracy over all of the data, in evaluation mode.

        Args:
            x, y: as of `fit`. batch_size: images at once; the result does not depend on it.
        """
        return self._evaluate(x, y, batch_size).logs()

    def _evaluate(self, x: Any, y: Array | None, batch_size: int) -> _Meter:
        meter = _Meter(self.loss)
        with evaluation(self.model), closing(_generate(make_batches(x, y, batch_size))) as generated:
            for part_x, part_y in generated:
                value, divisor, hits = self._run(part_x, part_y, _EVALUATION, random.next_call)
                meter.add(value, divisor, hits, len(part_x))
        return meter

    def predict(self, x: Array, batch_size: int = 256) -> Array:
        """The network's output (n, ...) for all of x, in evaluation mode: for classifiers the logits.

        Args:
            x: the inputs, (n, ...); images of bytes are taken from 0..255 to 0..1.
            batch_size: images at once.
        """
        outputs = []
        with evaluation(self.model):
            for part in slices(x, batch_size):
                traced = self._find_trace(_PREDICTION, part, None)
                outputs.append(traced.forward((part,), *random.next_call())[0])
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)


def _generate(batches: Any) -> Any:
    """A generator, so that closing it ends the loader's thread at once."""
    yield from batches


class _Bar:
    """A progress bar, or none without text."""

    def __init__(self, text: str | None, images: int) -> None:
        self.bar: Any = None
        if text is not None:
            from tqdm import tqdm  # not at the top: it would slow down `import pycnn`

            self.bar = tqdm(total=images, desc=text, unit=" images", dynamic_ncols=True)

    def advance(self, images: int, logs: dict[str, float]) -> None:
        if self.bar is not None:
            self.bar.set_postfix({name: f"{value:.4f}" for name, value in logs.items()}, refresh=not images)
            self.bar.update(images)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()


def _check(name: str, value: Any, wanted: type) -> None:
    if not isinstance(value, wanted):
        raise TypeError(f"{name}: got {type(value).__name__}, expected {wanted.__module__}.{wanted.__name__}")
