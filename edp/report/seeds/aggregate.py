"""Means and standard errors over seeds."""

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
    """Computes means and standard errors over seeds, for rows with the same keys.

    Args:
      by_seed: seed -> rows.
      keys: fields that identify a row across seeds.
      fields: fields to summarise; None for every number.

    Returns:
      A row for each combination of keys, in order of appearance: the keys, the
      `seeds` that have it, and a quantity for each field that any of them has.
    """
    groups: dict[tuple, dict[int, Mapping[str, Any]]] = {}
    for seed, rows in by_seed.items():
        for row in rows:
            groups.setdefault(tuple(row.get(k) for k in keys), {})[seed] = row
    result = []
    for values_of_keys, rows in groups.items():
        if fields is None:
            names = dict.fromkeys(name for row in rows.values() for name in row)
        else:
            names = dict.fromkeys(fields)
        summary = dict(zip(keys, values_of_keys, strict=True)) | {"seeds": list(rows)}
        for name in names:
            values = {s: row[name] for s, row in rows.items() if is_number(row, name)}
            if values and name not in keys:
                summary[name] = quantity(values)
        result.append(summary)
    return result


def quantity(by_seed: Mapping[int, float]) -> Row:
    """Returns {"mean", "se" (absent for one seed), "by_seed"} of a number by seed."""
    mean, error = metrics.mean_and_error(list(by_seed.values()))
    result = {"mean": mean} if error is None else {"mean": mean, "se": error}
    return result | {"by_seed": {str(s): float(v) for s, v in by_seed.items()}}


def shared_seeds(quantities: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the seeds that all of at least one quantity have, in order."""
    first, *others = [quantity["by_seed"] for quantity in quantities]
    return [seed for seed in first if all(seed in other for other in others)]


def lowest_mean(quantities: Mapping[Any, Mapping[str, Any]]) -> Any:
    """Returns the name of the quantity with the lowest mean over seeds.

    Compares means over the seeds that all quantities have, as seeds may differ by more
    than the quantities of one seed; where they share none, means over all of their own.

    Args:
      quantities: at least one.
    """
    shared = shared_seeds(quantities.values())

    def mean(name: Any) -> float:
        of = quantities[name]
        if len(shared) in (0, len(of["by_seed"])):
            return of["mean"]
        return metrics.mean_and_error([of["by_seed"][s] for s in shared]).mean

    return min(quantities, key=mean)


def is_number(row: Mapping[str, Any], name: str) -> bool:
    """Returns whether a row has a finite number of this name."""
    value = row.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
