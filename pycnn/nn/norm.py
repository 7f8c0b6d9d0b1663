"""Normalization layers. All compute w (x - mean) / sqrt(var + eps) + b; they differ in what mean and var are over."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycnn import functional as F
from pycnn._arguments import integer, real
from pycnn.nn.module import Module
from pycnn.parameter import Parameter


class _RunningNorm(Module):
    """Per channel, with running statistics if wanted."""

    _takes = "4 dimensions (n, c, h, w)"

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool
    ) -> None:
        super().__init__()
        self.num_features = integer(num_features, "num_features", 1)
        self.eps = real(eps, "eps", 0.0)
        self.momentum = None if momentum is None else real(momentum, "momentum", 0.0, 1.0)
        self.affine = bool(affine)
        self.track_running_stats = bool(track_running_stats)
        ones, zeros = np.ones(self.num_features, np.float32), np.zeros(self.num_features, np.float32)
        self.register_parameter("weight", Parameter(ones) if affine else None)
        self.register_parameter("bias", Parameter(zeros) if affine else None)
        tracked = self.track_running_stats
        self.register_buffer("running_mean", zeros.copy() if tracked else None)
        self.register_buffer("running_var", ones.copy() if tracked else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if tracked else None)

    def reset_running_stats(self) -> None:
        if self.track_running_stats:
            self.running_mean = np.zeros(self.num_features)
            self.running_var = np.ones(self.num_features)
            self.num_batches_tracked = np.zeros((), np.int64)

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        if self.affine:
            self.weight.data[...] = 1
            self.bias.data[...] = 0

    def _normalize(self, function: Any, x: Any) -> Any:
        if x.ndim != 4:
            raise ValueError(f"x: got shape {x.shape}, expected {self._takes}")
        if x.shape[1] != self.num_features:
            raise ValueError(
                f"x: got {x.shape[1]} channels in shape {x.shape}, expected num_features {self.num_features}"
            )
        return function(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum,
            self.eps,
            self.num_batches_tracked,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm2d(_RunningNorm):
    """Normalizes each channel over the batch and its pixels, as `torch.nn.BatchNorm2d`. Ioffe and Szegedy, 2015.

    x (n, c, h, w) -> the same shape. Training uses the batch's mean and biased variance and records them:
    running = (1 - momentum) running + momentum new, with the unbiased variance; momentum None averages all batches.
    Evaluation uses the running statistics.

    Attributes:
        weight, bias: Parameter (c), or None without `affine`. running_mean, running_var: float arrays (c) and
        num_batches_tracked: int64 array (), or None without `track_running_stats`.

    Raises:
        ValueError: training with one value per channel, whose variance says nothing.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Any) -> Any:
        return self._normalize(F.batch_norm, x)


class InstanceNorm2d(_RunningNorm):
    """Normalizes each channel of each image over its pixels, as `torch.nn.InstanceNorm2d`. Ulyanov et al., 2016.

    x (n, c, h, w) -> the same shape. Neither affine nor with running statistics unless asked."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, x: Any) -> Any:
        return self._normalize(F.instance_norm, x)


class GroupNorm(Module):
    """Normalizes groups of channels of each image, as `torch.nn.GroupNorm`. Wu and He, 2018.

    x (n, c, ...) -> the same shape. weight, bias: Parameter (c), or None without `affine`."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.num_groups = integer(num_groups, "num_groups", 1)
        self.num_channels = integer(num_channels, "num_channels", 1)
        if self.num_channels % self.num_groups:
            raise ValueError(f"num_channels: got {num_channels}, expected a multiple of num_groups {num_groups}")
        self.eps = real(eps, "eps", 0.0)
        self.affine = bool(affine)
        self.register_parameter("weight", Parameter(np.ones(self.num_channels, np.float32)) if affine else None)
        self.register_parameter("bias", Parameter(np.zeros(self.num_channels, np.float32)) if affine else None)

    def forward(self, x: Any) -> Any:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(f"x: got shape {x.shape}, expected (n, c, ...) with num_channels {self.num_channels}")
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LayerNorm(Module):
    """Normalizes over the trailing axes, as `torch.nn.LayerNorm`. Ba et al., 2016.

    x (..., *normalized_shape) -> the same shape. weight, bias: Parameter normalized_shape, or None."""

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        sizes = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        self.normalized_shape = tuple(integer(size, "normalized_shape", 1) for size in sizes)
        if not self.normalized_shape:
            raise ValueError("normalized_shape: got no sizes, expected at least one")
        self.eps = real(eps, "eps", 0.0)
        self.elementwise_affine = bool(elementwise_affine)
        ones, zeros = np.ones(self.normalized_shape, np.float32), np.zeros(self.normalized_shape, np.float32)
        self.register_parameter("weight", Parameter(ones) if elementwise_affine else None)
        self.register_parameter("bias", Parameter(zeros) if elementwise_affine and bias else None)

    def forward(self, x: Any) -> Any:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
