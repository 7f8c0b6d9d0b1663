"""Gradient clipping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycnn._arguments import real
from pycnn._core import Segments
from pycnn.parameter import Parameter, check_parameters, flat_runs

_EPS = 1e-6  # PyTorch's, in the denominator


def _trained(parameters: Any) -> list[list[Parameter]]:
    """The parameters that get gradients, by dtype."""
    by_dtype: dict[np.dtype[Any], list[Parameter]] = {}
    for p in check_parameters(parameters, "parameters"):
        if p.requires_grad:
            by_dtype.setdefault(p.dtype, []).append(p)
    return list(by_dtype.values())


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scales the gradients, in place and all by one factor, so that their common norm is at most max_norm.

    Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013.

    Args:
        parameters: a parameter or several; frozen ones do not count.
        max_norm: at least 0.
        norm_type: 2.0, or inf for the largest magnitude.
        error_if_nonfinite: raise ValueError, and scale nothing, where the norm is NaN or infinite.

    Returns:
        The norm before scaling.
    """
    most = real(max_norm, "max_norm", 0.0)
    if norm_type not in (2.0, math.inf):
        raise ValueError(f"norm_type: got {norm_type!r}, expected 2.0 or inf")
    infinity = norm_type == math.inf
    tables = [Segments(group[0].dtype, [(*run, 0) for run in flat_runs(group)]) for group in _trained(parameters)]
    norms = [table.gradient_norm(infinity) for table in tables]
    norm = float(max(norms, default=0.0) if infinity else math.hypot(*norms))
    if any(map(math.isnan, norms)):
        norm = math.nan
    if error_if_nonfinite and not math.isfinite(norm):
        raise ValueError(f"parameters: got gradients of norm {norm}, expected a finite one")
    scale = most / (norm + _EPS)
    if not scale >= 1:
        for table in tables:
            table.scale_gradients(scale)
    return norm


def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Brings every element of the gradients, in place, into -clip_value to clip_value."""
    limit = real(clip_value, "clip_value", 0.0)
    for group in _trained(parameters):
        for _, grad in flat_runs(group):
            np.clip(grad, -limit, limit, out=grad)
