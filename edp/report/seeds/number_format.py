"""Formats quantities over seeds as mean ± standard error, and p-values."""

from collections.abc import Mapping
from typing import Any

DASH = "–"  # no value


def mean_text(value: Any, scale: float, digits: int, sign: str = "") -> str:
    """Formats a quantity as mean ± standard error, a number, or None as a dash.

    Args:
      value: {"mean", and of several seeds "se"}, a number, or None.
      scale: factor.
      digits: decimals shown.
      sign: "+" to show the sign of positive numbers.
    """
    if value is None:
        return DASH
    if not isinstance(value, Mapping):
        return f"{scale * value:{sign}.{digits}f}"
    error = f" ± {scale * value['se']:.{digits}f}" if "se" in value else ""
    return f"{scale * value['mean']:{sign}.{digits}f}{error}"


def p_text(p: float | None) -> str:
    """Formats a p-value; None (one seed) as a dash."""
    if p is None:
        return DASH
    return f"{p:.3f}" if p >= 0.001 else "<0.001"
