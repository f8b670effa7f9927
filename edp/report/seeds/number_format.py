"""What is known of a quantity over seeds, as text: mean ± standard error, and p."""

from collections.abc import Mapping
from typing import Any

DASH = "–"  # there is no value


def mean_text(value: Any, scale: float, digits: int, sign: str = "") -> str:
    """A quantity as mean ± standard error; a number; or a dash for None.

    Args:
      value: {"mean", and of several seeds "se"}, a number, or None.
      scale: what it is multiplied by.
      digits: decimals shown.
      sign: "+" to show that of numbers above 0 too.
    """
    if value is None:
        return DASH
    if not isinstance(value, Mapping):
        return f"{scale * value:{sign}.{digits}f}"
    error = f" ± {scale * value['se']:.{digits}f}" if "se" in value else ""
    return f"{scale * value['mean']:{sign}.{digits}f}{error}"


def p_text(p: float | None) -> str:
    """A p-value; a dash for None, as of one seed."""
    if p is None:
        return DASH
    return f"{p:.3f}" if p >= 0.001 else "<0.001"
