"""Runs the tests against the installed package, and sets hypothesis up."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

CHECKOUT = Path(__file__).resolve().parent.parent

# `python -m pytest` puts the current directory first on sys.path, and with it the checkout's pycnn/, whose
# compiled core is not there.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != CHECKOUT]

common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("dev", max_examples=40, **common)
settings.register_profile("ci", max_examples=40, derandomize=True, database=None, print_blob=True, **common)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_configure(config: pytest.Config) -> None:
    spec = importlib.util.find_spec("pycnn")
    if spec is None:
        raise pytest.UsageError("pycnn is not installed: run `pip install .` first")
    if not {"site-packages", "dist-packages"} & set(Path(spec.origin or "").parts):
        raise pytest.UsageError(
            f"the tests run against the installed package, but `import pycnn` finds {spec.origin}"
        )
