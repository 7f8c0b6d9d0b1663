"""The ratios as a picture."""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Sequence
from typing import Any

from pycnn.bench import report


def figures() -> Any:
    """matplotlib.figure; ImportError where it is not installed."""
    try:
        return importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install pycnn[plot]") from error


def save(path: str, verdicts: Sequence[report.Verdict], caption: str) -> None:
    """One row per group: a dot per shape, a bar at the median, a line where pycnn and the best peer are even.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no case has a ratio.
    """
    ratios = report.grouped(report.ratios(verdicts))
    if not ratios:
        raise ValueError("--plot: no case ran against a peer, so there is no ratio to draw")
    groups = list(reversed(ratios))
    figure = figures().Figure(figsize=(9, 1.6 + 0.32 * len(groups)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color="black", linewidth=1)
    for row, group in enumerate(groups):
        axes.scatter(ratios[group], [row] * len(ratios[group]), s=18, alpha=0.5, color="tab:blue", linewidths=0)
        median = statistics.median(ratios[group])
        axes.plot([median, median], [row - 0.35, row + 0.35], color="tab:red", linewidth=2)
        axes.annotate(f"{median:.2f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xticks((0.25, 0.5, 1, 2, 4, 8), labels=("1/4", "1/2", "1", "2", "4", "8"))
    axes.minorticks_off()
    axes.set_yticks(range(len(groups)), labels=groups)
    axes.set_ylim(-0.7, len(groups) - 0.3)
    axes.set_xlabel("speed of pycnn / speed of the best peer; right: median")
    axes.set_title(caption, fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)
