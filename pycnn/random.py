"""The random numbers of initial weights and dropout: counter-based, so that a seed says everything."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator
from contextlib import contextmanager

_INITIAL_SEED = 0

_seed = _INITIAL_SEED
_streams = itertools.count()
_calls = itertools.count()


def manual_seed(seed: int) -> None:
    """Starts the random numbers afresh: initial weights and dropout masks after it depend on `seed` alone.

    Args:
        seed: 0 to 2**64 - 1.

    Raises:
        TypeError: seed is no integer. ValueError: seed is out of range.
    """
    global _seed, _streams, _calls
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed: got {type(seed).__name__}, expected int") from None
    if not 0 <= number < 2**64:
        raise ValueError(f"seed: got {seed}, expected 0 to 2**64 - 1")
    _seed, _streams, _calls = number, itertools.count(), itertools.count()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """`manual_seed` for a while: after it the random numbers go on from where they were."""
    global _seed, _streams, _calls
    before = _seed, _streams, _calls
    manual_seed(seed)
    try:
        yield
    finally:
        _seed, _streams, _calls = before


def next_stream() -> tuple[int, int]:
    """(seed, stream) for one tensor of random numbers."""
    return _seed, next(_streams)


def next_call() -> tuple[int, int]:
    """(seed, call) for one forward run."""
    return _seed, next(_calls)
