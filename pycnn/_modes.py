"""Evaluation for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pycnn.nn import Module


@contextmanager
def evaluation(model: Module) -> Iterator[None]:
    """Puts all modules into evaluation mode and, at the end, each back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:  # parents come first: their children's own modes are set after
            module.train(training)
