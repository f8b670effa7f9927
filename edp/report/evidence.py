"""Scores of each test image, and differences between models with intervals.

All of it follows from `predictions/*.npz` alone, by the protocol of `results.json`:
temperatures are fitted on the validation split.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edp import metrics
from edp.errors import InputError
from edp.evaluation.predictions import Predictions, check_shapes
from edp.report.files import load_arrays, read
from edp.report.rows import Row, ensemble_rows, largest_ensemble, number

# Enough resamples for intervals of two digits.
_NUM_RESAMPLES = 2000
# A larger difference between a row's cNLL and that of the file is another training's.
_TOLERANCE = 1e-4


class Scored(NamedTuple):
    """Scores of a predictor on the images of one run, from its pooled members.

    Attributes:
      validation_cnll: mean over the validation images, with the temperature fitted
        on them.
      nll: NLL of each test image at that temperature, float64 [N].
      correct: 1.0 for each correctly predicted test image, else 0.0, [N].
    """

    validation_cnll: float
    nll: np.ndarray
    correct: np.ndarray


class Difference(NamedTuple):
    """Mean difference of the cNLLs of two models on the same test images.

    Attributes:
      value: below 0 if the first model is better.
      low: lower end of the 95 % interval of a paired bootstrap over the images.
      high: its upper end.
    """

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """-1 if the first model is better, +1 if worse, 0 if chance explains it."""
        return -1 if self.high < 0 else int(self.low > 0)


class Evidence(NamedTuple):
    """What the predictions of a run say of each of its models.

    Attributes:
      scored: by model: DE-1 (mean over the members), DE-M and the students.
      labels: the test labels that all of them share, [N]; None without predictions.
      missing: the reasons why models are left out.
    """

    scored: Mapping[str, Scored]
    labels: np.ndarray | None
    missing: Sequence[str]


def score_images(of: Predictions) -> Scored:
    """Scores each test image at the temperature fitted on the validation split."""
    pooled = [
        probs.mean(0, dtype=np.float64)
        for probs in (of.validation_probs, of.test_probs)
    ]
    temperature, _ = metrics.fit_temperature(pooled[0], of.validation_labels)
    validation, test = (metrics.apply_temperature(p, temperature) for p in pooled)
    return Scored(
        metrics.nll(validation, of.validation_labels),
        metrics.example_nll(test, of.test_labels),
        (pooled[1].argmax(-1) == of.test_labels).astype(np.float64),
    )


def score_members(of: Predictions) -> Scored:
    """Scores each member alone; returns means over the members, as of DE-1."""
    members = [
        score_images(
            of._replace(
                validation_probs=of.validation_probs[[i]],
                test_probs=of.test_probs[[i]],
            )
        )
        for i in range(len(of.test_probs))
    ]
    return Scored(*(np.mean(of_all, axis=0) for of_all in zip(*members, strict=True)))


def read_evidence(folder: pathlib.Path, rows: Sequence[Row]) -> Evidence:
    """Scores the models of `results.json` whose predictions can be read.

    Leaves out models whose predictions are missing or damaged, have other test labels
    than the first one, or do not give the calibrated NLL of their row.

    Args:
      folder: the directory of the predictions.
      rows: rows of `results.json`.
    """
    scored: dict[str, Scored] = {}
    labels, missing = None, []
    files = [("teachers", row) for row in largest_ensemble(rows)]
    files += [(str(r["model"]), r) for r in rows if r.get("kind") == "student"]
    for name, row in files:
        file = f"{pathlib.PurePath(name).name}.npz"
        arrays, why = read(folder / file, load_arrays(*Predictions._fields))
        if arrays is None:
            missing.append(why)
            continue
        try:
            found = _score(Predictions(*arrays), row, rows)
        except (InputError, ValueError, TypeError, IndexError) as error:
            missing.append(f"{file}: {error}")
            continue
        if labels is not None and not np.array_equal(labels, arrays[-1]):
            missing.append(f"{file} has other test labels")
        elif other := [m for m in found if differs(m, found[m], rows)]:
            missing.append(f"{file} does not give the cNLL of {other[0]}'s row")
        else:
            labels = arrays[-1]
            scored |= found
    return Evidence(scored, labels, missing)


def _score(of: Predictions, row: Row, rows: Sequence[Row]) -> dict[str, Scored]:
    """Scores the models of a file: those of the teachers are DE-M and DE-1."""
    check_shapes(of)
    found = {str(row["model"]): score_images(of)}
    singles = [r for r in ensemble_rows(rows) if r.get("num_members") == 1]
    if row.get("kind") == "ensemble" and row not in singles:
        found |= {str(single["model"]): score_members(of) for single in singles}
    return found


def differs(model: str, found: Scored, rows: Sequence[Row]) -> bool:
    """Returns whether scores do not give the calibrated NLL of the model's row.

    The row or the predictions are then of another training, or of other data.
    """
    row = next(row for row in rows if row["model"] == model)
    cnll = number(row, "cnll")
    if cnll is None or "num_subsets" in row:  # a sample of the members
        return False
    return abs(cnll - float(found.nll.mean())) > _TOLERANCE


def differences(
    scored: Mapping[str, Scored], pairs: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], Difference]:
    """Compares the cNLLs of pairs of models; leaves out unknown models."""
    pairs = [p for p in dict.fromkeys(pairs) if p[0] in scored and p[1] in scored]
    if not pairs:
        return {}
    columns = np.stack([scored[a].nll - scored[b].nll for a, b in pairs], axis=1)
    ends = metrics.bootstrap_intervals(columns, num_resamples=_NUM_RESAMPLES)
    means = columns.mean(axis=0)
    return {
        pair: Difference(*map(float, values))
        for pair, values in zip(pairs, zip(means, *ends, strict=True), strict=True)
    }


def intervals_about(
    scored: Mapping[str, Scored], reference: str
) -> dict[str, tuple[float, float]]:
    """Returns where each model's cNLL may lie beside that of a reference.

    The ends are those of the interval of the difference (`differences`), added to the
    cNLL of the reference, which has none itself.
    """
    found = differences(scored, [(m, reference) for m in scored if m != reference])
    level = float(scored[reference].nll.mean()) if found else 0.0
    return {m: (level + d.low, level + d.high) for (m, _), d in found.items()}
