"""Skips tests whose runtime is not installed."""

import pytest

from edp import export


def require(name):
    """Skips the test unless the packages of this target can be imported."""
    for package in export.TARGETS[name].packages:
        pytest.importorskip(package)
    if "jax2onnx" in export.TARGETS[name].packages:
        pytest.importorskip("onnx")
