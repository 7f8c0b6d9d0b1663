"""Schedules of the learning rate, with the names, arguments and semantics of `torch.optim.lr_scheduler`.

    scheduler = CosineAnnealingLR(optimizer, T_max=30)
    for epoch in range(30): train(); scheduler.step()

Each computes the rate in closed form from the step's number and the rate that the optimizer had when the first schedule
was made (`initial_lr` of a group): a schedule sets the rate, and does not multiply what another one set. To chain them,
SequentialLR.

`per_batch` says how often `pycnn.Trainer` takes a step: after each batch, or, if False, after each epoch. It may be
assigned.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any

from pycnn._arguments import choice, integer, real
from pycnn.optim.optimizer import Optimizer


class LRScheduler:
    """Base of the schedules: sets every group's `lr`, at once and at each `step()`.

    Args:
        optimizer: whose rates it sets.
        last_epoch: number of the last step made, to take a schedule up again; -1 begins.

    A subclass gives `rate(group, epoch)`.
    """

    per_batch = False

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = _check_optimizer(optimizer)
        integer(last_epoch, "last_epoch", -1)
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError("last_epoch: the optimizer's groups have no 'initial_lr' to take the schedule up from")
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def rate(self, group: int, epoch: int) -> float:
        """The learning rate of a group (by number) after `epoch` steps."""
        raise NotImplementedError

    def step(self) -> None:
        """Sets the rate for what follows."""
        self.move_to(self.last_epoch + 1)

    def move_to(self, epoch: int) -> None:
        """Sets the rate as it is after `epoch` steps."""
        self.last_epoch = epoch
        for number, group in enumerate(self.optimizer.param_groups[: len(self.base_lrs)]):
            group["lr"] = self.rate(number, epoch)

    def get_last_lr(self) -> list[float]:
        """The groups' learning rates as they are now."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, but the optimizer and functions."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave. The rates come with the optimizer's own state."""
        vars(self).update(state_dict)


class StepLR(LRScheduler):
    """Multiplies the rate by gamma every step_size steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = integer(step_size, "step_size", 1)
        self.gamma = real(gamma, "gamma", 0.0)
        super().__init__(optimizer, last_epoch)

    def rate(self, group: int, epoch: int) -> float:
        return self.base_lrs[group] * self.gamma ** (epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """Multiplies the rate by gamma at each of the milestones."""

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = sorted(integer(milestone, "milestones", 0) for milestone in milestones)
        self.gamma = real(gamma, "gamma", 0.0)
        super().__init__(optimizer, last_epoch)

    def rate(self, group: int, epoch: int) -> float:
        return self.base_lrs[group] * self.gamma ** bisect.bisect_right(self.milestones, epoch)


class ExponentialLR(LRScheduler):
    """Multiplies the rate by gamma at every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = real(gamma, "gamma", 0.0)
        super().__init__(optimizer, last_epoch)

    def rate(self, group: int, epoch: int) -> float:
        return self.base_lrs[group] * self.gamma**epoch


class LinearLR(LRScheduler):
    """Takes the rate's factor from start_factor to end_factor evenly in total_iters steps: a warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = real(start_factor, "start_factor", 0.0, 1.0)
        self.end_factor = real(end_factor, "end_factor", 0.0, 1.0)
        self.total_iters = integer(total_iters, "total_iters", 1)
        if self.start_factor == 0:
            raise ValueError("start_factor: got 0.0, expected above 0 and at most 1")
        super().__init__(optimizer, last_epoch)

    def rate(self, group: int, epoch: int) -> float:
        done = min(epoch, self.total_iters) / self.total_iters
        return self.base_lrs[group] * (self.start_factor + (self.end_factor - self.start_factor) * done)


class LambdaLR(LRScheduler):
    """Multiplies the initial rate by a function of the step's number, one for all groups or a list, one a group."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        groups = len(_check_optimizer(optimizer).param_groups)
        listed = list(lr_lambda) if isinstance(lr_lambda, (list, tuple)) else [lr_lambda] * groups
        if len(listed) != groups:
            raise ValueError(f"lr_lambda: got {len(listed)} functions, expected {groups}, one a group")
        for function in listed:
            if not callable(function):
                raise TypeError(f"lr_lambda: got {type(function).__name__}, expected a function")
        self.lr_lambdas: list[Callable[[int], float]] = listed
        super().__init__(optimizer, last_epoch)

    def rate(self, group: int, epoch: int) -> float:
        return self.base_lrs[group] * self.lr_lambdas[group](epoch)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        del state["lr_lambdas"]
        return state


class CosineAnnealingLR(LRScheduler):
    """From the initial rate to eta_min in T_max steps, along half a cosine, and then up again.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = integer(T_max, "T_max", 1)
        self.eta_min = real(eta_min, "eta_min", 0.0)
        super().__init__(optimizer, last_epoch)

    def rate(self, group: int, epoch: int) -> float:
        return _cosine(self.base_lrs[group], self.eta_min, epoch / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Cosines from the initial rate to eta_min, the first T_0 steps long, each next T_mult times as long.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017."""

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_0 = integer(T_0, "T_0", 1)
        self.T_mult = integer(T_mult, "T_mult", 1)
        self.eta_min = real(eta_min, "eta_min", 0.0)
        super().__init__(optimizer, last_epoch)

    def rate(self, group: int, epoch: int) -> float:
        length = self.T_0
        while epoch >= length:
            epoch -= length
            length *= self.T_mult
        return _cosine(self.base_lrs[group], self.eta_min, epoch / length)


class OneCycleLR(LRScheduler):
    """Up to max_lr and down to almost nothing within one training run, a step a batch; momentum goes the other way.

    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2018. The
    momentum is SGD's and RMSprop's `momentum`, or the first of Adam's betas.

    Args:
        optimizer: whose rates it sets.
        max_lr: the peak, one for all groups or a list, one a group.
        total_steps: length of the cycle in batches; or else `epochs` and `steps_per_epoch`.
        pct_start: the part of the cycle in which the rate rises.
        anneal_strategy: 'cos' or 'linear'.
        cycle_momentum: also move the momentum, from max_momentum to base_momentum and back.
        div_factor: max_lr over the initial rate.
        final_div_factor: the initial rate over the last one.
        three_phase: fall to the initial rate as fast as it rose, then to the last one.

    Raises:
        ValueError: arguments out of range, or more steps than the cycle has.
    """

    per_batch = True

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        groups = _check_optimizer(optimizer).param_groups
        if total_steps is not None:
            self.total_steps = integer(total_steps, "total_steps", 1)
        elif epochs is not None and steps_per_epoch is not None:
            self.total_steps = integer(epochs, "epochs", 1) * integer(steps_per_epoch, "steps_per_epoch", 1)
        else:
            raise ValueError("total_steps: got None, expected a number, or both epochs and steps_per_epoch")
        peaks = list(max_lr) if isinstance(max_lr, (list, tuple)) else [max_lr] * len(groups)
        if len(peaks) != len(groups):
            raise ValueError(f"max_lr: got {len(peaks)} rates, expected {len(groups)}, one a group")
        self.max_lrs = [real(peak, "max_lr", 0.0) for peak in peaks]
        self.pct_start = real(pct_start, "pct_start", 0.0, 1.0)
        self.anneal_strategy = choice(anneal_strategy, "anneal_strategy", ("cos", "linear"))
        self.base_momentum = real(base_momentum, "base_momentum", 0.0, 1.0)
        self.max_momentum = real(max_momentum, "max_momentum", 0.0, 1.0)
        self.div_factor = _above_zero(div_factor, "div_factor")
        self.final_div_factor = _above_zero(final_div_factor, "final_div_factor")
        self.three_phase = bool(three_phase)
        self.cycle_momentum = bool(cycle_momentum)
        if self.cycle_momentum and not all("betas" in group or "momentum" in group for group in groups):
            raise ValueError("cycle_momentum: the optimizer has neither momentum nor betas")
        super().__init__(optimizer, last_epoch)

    def rate(self, group: int, epoch: int) -> float:
        peak = self.max_lrs[group]
        start = peak / self.div_factor
        return self._follow(epoch, start, peak, start, start / self.final_div_factor)

    def move_to(self, epoch: int) -> None:
        if epoch > self.total_steps:
            raise ValueError(f"step: got step {epoch}, expected at most total_steps {self.total_steps}")
        super().move_to(epoch)
        if self.cycle_momentum:
            most, least = self.max_momentum, self.base_momentum
            momentum = self._follow(epoch, most, least, most, most)
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum

    def _follow(self, step: int, start: float, peak: float, back: float, last: float) -> float:
        """Where a quantity stands that goes from start to peak, (back,) and last."""
        top, end = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if self.three_phase:
            ends, values = [top, 2 * self.pct_start * self.total_steps - 2, end], [start, peak, back, last]
        else:
            ends, values = [top, end], [start, peak, last]
        phase = min(bisect.bisect_left(ends, step), len(ends) - 1)
        begin = ends[phase - 1] if phase else 0.0
        done = (step - begin) / (ends[phase] - begin) if ends[phase] != begin else 1.0
        if self.anneal_strategy == "linear":
            return values[phase] + (values[phase + 1] - values[phase]) * done
        return _cosine(values[phase], values[phase + 1], done)


class ReduceLROnPlateau(LRScheduler):
    """Multiplies the rate by `factor` when a metric has not improved for more than `patience` steps.

    Args:
        optimizer: whose rates it sets.
        mode: 'min' for a metric that falls as a loss does, 'max' for one that rises as accuracy does. `pycnn.Trainer`
            gives the loss or the accuracy accordingly, of the validation data if there are any.
        factor: below 1.
        patience: steps without improvement that are borne.
        threshold: least improvement that counts, a part of the best ('rel') or a difference ('abs').
        threshold_mode: 'rel' or 'abs'.
        cooldown: steps after a reduction in which nothing is counted.
        min_lr: the least rate, one for all groups or a list.
        eps: least change of the rate that is made.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.optimizer = _check_optimizer(optimizer)
        self.mode = choice(mode, "mode", ("min", "max"))
        self.factor = real(factor, "factor", 0.0)
        if self.factor >= 1:
            raise ValueError(f"factor: got {factor}, expected below 1")
        self.patience = integer(patience, "patience", 0)
        self.threshold = real(threshold, "threshold", 0.0)
        self.threshold_mode = choice(threshold_mode, "threshold_mode", ("rel", "abs"))
        self.cooldown = integer(cooldown, "cooldown", 0)
        groups = len(optimizer.param_groups)
        least = list(min_lr) if isinstance(min_lr, (list, tuple)) else [min_lr] * groups
        if len(least) != groups:
            raise ValueError(f"min_lr: got {len(least)} rates, expected {groups}, one a group")
        self.min_lrs = [real(rate, "min_lr", 0.0) for rate in least]
        self.eps = real(eps, "eps", 0.0)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def step(self, metrics: float | None = None) -> None:
        """Counts an epoch that ended with this value of the metric."""
        if metrics is None:
            raise TypeError("metrics: got None, expected the metric's value")
        value = float(metrics)
        self.last_epoch += 1
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, value: float) -> bool:
        margin = self.threshold * self.best if self.threshold_mode == "rel" else self.threshold
        if math.isinf(self.best):
            margin = 0.0
        return value < self.best - margin if self.mode == "min" else value > self.best + margin

    def _reduce(self) -> None:
        for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=False):
            reduced = max(group["lr"] * self.factor, least)
            if group["lr"] - reduced > self.eps:
                group["lr"] = reduced


class SequentialLR(LRScheduler):
    """One schedule after the other: the next one begins, from its step 0, at each milestone."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self.schedulers = list(schedulers)
        self.milestones = [integer(milestone, "milestones", 1) for milestone in milestones]
        if not self.schedulers or len(self.milestones) != len(self.schedulers) - 1:
            raise ValueError(
                f"milestones: got {len(self.milestones)} for {len(self.schedulers)} schedulers, expected one fewer"
            )
        if any(a >= b for a, b in zip(self.milestones, self.milestones[1:], strict=False)):
            raise ValueError(f"milestones: got {self.milestones}, expected them to rise")
        for scheduler in self.schedulers:
            if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, (ReduceLROnPlateau, SequentialLR)):
                raise TypeError(f"schedulers: got {type(scheduler).__name__}, expected schedules in closed form")
            if scheduler.optimizer is not optimizer:
                raise ValueError("schedulers: got one of another optimizer")
        self.per_batch = self.schedulers[0].per_batch
        super().__init__(optimizer, last_epoch)

    def move_to(self, epoch: int) -> None:
        self.last_epoch = epoch
        part = bisect.bisect_right(self.milestones, epoch)
        self.schedulers[part].move_to(epoch - (self.milestones[part - 1] if part else 0))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "schedulers": [scheduler.state_dict() for scheduler in self.schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        parts = state_dict["schedulers"]
        if len(parts) != len(self.schedulers):
            raise ValueError(f"state_dict: got {len(parts)} schedulers, expected {len(self.schedulers)}")
        for scheduler, state in zip(self.schedulers, parts, strict=True):
            scheduler.load_state_dict(state)
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "schedulers"})


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _above_zero(value: Any, name: str) -> float:
    number = real(value, name, 0.0)
    if number == 0:
        raise ValueError(f"{name}: got 0, expected above 0")
    return number


def _check_optimizer(optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: got {type(optimizer).__name__}, expected pycnn.optim.Optimizer")
    return optimizer
