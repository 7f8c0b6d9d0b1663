"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from typing import Any

from pycnn._arguments import real
from pycnn.optim.optimizer import Group, Optimizer


class Adam(Optimizer):
    """w -= lr m / (sqrt(v) + eps), with m and v the averages of the gradient and its square, freed of their bias to 0.

    weight_decay w is added to the gradient. Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Args:
        params: parameters or groups.
        lr: learning rate, at least 0.
        betas: what the averages keep of themselves, each from 0 to below 1.
        eps: at least 0.
        weight_decay: at least 0.
        maximize: ascend.
    """

    _rule = "adam"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def _check(self, group: Group) -> None:
        for name in ("lr", "eps", "weight_decay"):
            real(group[name], name, 0.0)
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas: got {betas!r}, expected two numbers")
        if not all(0 <= real(beta, "betas") < 1 for beta in betas):
            raise ValueError(f"betas: got {tuple(betas)}, expected two numbers from 0 to below 1")

    def _buffers(self, group: Group) -> tuple[str | None, ...]:
        return "exp_avg", "exp_avg_sq"

    def _options(self, group: Group) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        names = ("lr", "eps", "weight_decay", "maximize")
        return {"beta1": beta1, "beta2": beta2, **{name: group[name] for name in names}}


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights directly, w -= lr weight_decay w, and stays out of the averages.

    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019. Arguments as of Adam.
    """

    _rule = "adamw"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, maximize=maximize)
