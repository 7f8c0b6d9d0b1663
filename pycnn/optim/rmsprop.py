"""RMSprop."""

from __future__ import annotations

from typing import Any

from pycnn._arguments import real
from pycnn.optim.optimizer import Group, Optimizer


class RMSprop(Optimizer):
    """w -= lr g / (sqrt(v) + eps), with v the average of the gradient's square, or its variance if `centered`.

    With momentum the quotients gather in a velocity. Tieleman and Hinton, "Neural networks for machine learning",
    lecture 6.5, 2012; the centred form is of Graves, "Generating sequences with recurrent neural networks", 2013.

    Args:
        params: parameters or groups.
        lr: learning rate, at least 0.
        alpha: what the average keeps of itself, from 0 to below 1.
        eps, weight_decay, momentum: at least 0; weight_decay w is added to the gradient.
        centered: divide by the standard deviation.
        maximize: ascend.
    """

    _rule = "rmsprop"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: Group) -> None:
        for name in ("lr", "eps", "weight_decay", "momentum"):
            real(group[name], name, 0.0)
        if not 0 <= real(group["alpha"], "alpha") < 1:
            raise ValueError(f"alpha: got {group['alpha']}, expected a number from 0 to below 1")

    def _buffers(self, group: Group) -> tuple[str | None, ...]:
        return (
            "square_avg",
            "momentum_buffer" if group["momentum"] else None,
            "grad_avg" if group["centered"] else None,
        )

    def _options(self, group: Group) -> dict[str, Any]:
        names = ("lr", "eps", "weight_decay", "momentum", "centered", "maximize")
        return {"beta2": group["alpha"], **{name: group[name] for name in names}}
