"""Numbers of several seeds in one: means and standard errors."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edp import metrics

Row = dict[str, Any]


def over_seeds(
    by_seed: Mapping[int, Sequence[Mapping[str, Any]]],
    keys: Sequence[str],
    fields: Iterable[str] | None = None,
) -> list[Row]:
    """Means and standard errors of the numbers of rows that are of the same thing.

    Args:
      by_seed: seed -> rows.
      keys: what rows of the same thing have in common.
      fields: what to summarise; None: every number of the rows.

    Returns:
      A row for each thing, in the order they first come in: its keys, the `seeds`
      that have it, and each field that any of them has as a quantity.
    """
    things: dict[tuple, dict[int, Mapping[str, Any]]] = {}
    for seed, rows in by_seed.items():
        for row in rows:
            things.setdefault(tuple(row.get(k) for k in keys), {})[seed] = row
    result = []
    for thing, rows in things.items():
        if fields is None:
            names = dict.fromkeys(name for row in rows.values() for name in row)
        else:
            names = dict.fromkeys(fields)
        summary = dict(zip(keys, thing, strict=True)) | {"seeds": list(rows)}
        for name in names:
            values = {s: row[name] for s, row in rows.items() if is_number(row, name)}
            if values and name not in keys:
                summary[name] = quantity(values)
        result.append(summary)
    return result


def quantity(by_seed: Mapping[int, float]) -> Row:
    """{"mean", "se" (absent for one seed), "by_seed"} of a number of each seed."""
    mean, error = metrics.mean_and_error(list(by_seed.values()))
    result = {"mean": mean} if error is None else {"mean": mean, "se": error}
    return result | {"by_seed": {str(s): float(v) for s, v in by_seed.items()}}


def is_number(row: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a finite number of this name."""
    value = row.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
