"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from pycnn._arguments import real
from pycnn.optim.optimizer import Group, Optimizer


class SGD(Optimizer):
    """w -= lr v, with the velocity v = momentum v + (1 - dampening) g, or g + momentum v with `nesterov`.

    g is the gradient plus weight_decay w; the first velocity is g itself. Sutskever et al., "On the importance of
    initialization and momentum in deep learning", ICML 2013, in PyTorch's form, in which lr stands outside of v.

    Args:
        params: parameters or groups.
        lr: learning rate, at least 0.
        momentum, dampening: at least 0.
        weight_decay: at least 0; d is an L2 penalty of d/2 times the sum of squares.
        nesterov: needs momentum and no dampening.
        maximize: ascend.
    """

    _rule = "sgd"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: Group) -> None:
        for name in ("lr", "momentum", "dampening", "weight_decay"):
            real(group[name], name, 0.0)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError(
                f"nesterov: got momentum {group['momentum']} and dampening {group['dampening']}, "
                "expected a momentum above 0 and no dampening"
            )

    def _buffers(self, group: Group) -> tuple[str | None, ...]:
        return ("momentum_buffer" if group["momentum"] else None,)

    def _options(self, group: Group) -> dict[str, Any]:
        return {name: group[name] for name in self.defaults}
