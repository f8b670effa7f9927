"""Predictions made elsewhere: read from NumPy files, checked and scored.

A file or a directory holds arrays of these names:

  `validation_probs` or `validation_logits`, `test_probs` or `test_logits`: of the M
      members, [M, N, K] and [M, N', K];
  `validation_labels`, `test_labels`: integers [N] and [N'];
  `NAME/validation_probs`, ...: the same of a student NAME, [S, N, K], or [N, K] of one
      network. Its labels may be left out;
  `NAME/inference_cost`: the cost of its prediction, in forward passes of one member; S
      if it is left out.
"""

import difflib
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from edp.errors import InputError
from edp.evaluation import predictions, scoring
from edp.evaluation.predictions import Predictions
from edp.experiment.rules import PREDICTOR_NAME
from edp.runtime import storage

Arrays = Mapping[str, np.ndarray]
TEACHERS = "teachers"
_SPLITS = ("validation", "test")
_KINDS = ("probs", "logits", "labels")
_ARRAYS = [f"{split}_{kind}" for split in _SPLITS for kind in _KINDS]
# What an evaluation writes into its workdir, in place of others of these names.
_WRITTEN = ("results.json", "results.md", "report.html", "predictions", "figures")
# Allows the rounding of a low-precision softmax.
_ROW_SUM_TOLERANCE = 1e-2


class Given(NamedTuple):
    """The predictions of one predictor, and the cost of one of them.

    Attributes:
      predictions: probabilities of the members, with the labels.
      inference_cost: in forward passes of one member of the ensemble.
    """

    predictions: Predictions
    inference_cost: float


def check_workdir(workdir: storage.Path, source: pathlib.Path) -> None:
    """Checks that an evaluation of given predictions replaces nobody's files.

    Args:
      workdir: the directory to write to.
      source: the given predictions.

    Raises:
      InputError: if the directory is that of a run, holds the given predictions in its
        `predictions/`, or holds files of the names of those to be written and is not
        that of an earlier evaluation of given predictions.
    """
    if (workdir / "config.json").exists():
        raise InputError(
            f"workdir={str(workdir)!r} is that of a run; accepted: a new directory"
        )
    copies = workdir / "predictions"
    if not storage.is_remote(workdir):
        resolved = source.resolve()
        if copies.resolve() in (resolved, *resolved.parents):
            raise InputError(
                f"predictions={str(source)!r} is in the workdir; accepted: another "
                "workdir"
            )
    found = [name for name in _WRITTEN if (workdir / name).exists()]
    if found and not _is_of_given(workdir / "results.json"):
        raise InputError(
            f"workdir={str(workdir)!r} holds {', '.join(found)}, which would be "
            "replaced; accepted: a new directory, or that of an earlier --predictions"
        )


def _is_of_given(path: storage.Path) -> bool:
    """Returns whether a file holds rows of `score_given`, which have no seed."""
    try:
        rows = storage.read_json(path)
    except (InputError, OSError):
        return False
    return (
        isinstance(rows, list)
        and all(isinstance(row, dict) and "seed" not in row for row in rows)
        and [row.get("model") for row in rows[:1]] == ["DE-1"]
    )


def read_given(path: pathlib.Path) -> dict[str, Given]:
    """Reads the predictions of an ensemble and, if there are any, of students.

    Args:
      path: an `.npz` with the arrays of this module's docstring; or a directory with
        them as `.npy` files (those of a student in a directory NAME), or as the
        `.npz` files `teachers.npz` and `NAME.npz`, such as `predictions/` of a run.

    Returns:
      `teachers`, then the students by name.

    Raises:
      InputError: if an array is missing, unknown or not as described; names it.
    """
    try:
        return _parse(_read_arrays(path))
    except InputError as error:
        raise InputError(f"predictions={str(path)!r}: {error}") from error


def score_given(given: Mapping[str, Given]) -> list[scoring.Row]:
    """Computes the rows of results of `read_given`.

    They lack what only a run knows: seeds, perturbations, parameters and times.
    """
    teachers = given[TEACHERS].predictions
    sizes = range(1, len(teachers.test_probs) + 1)
    rows = scoring.ensemble_rows(
        teachers, seed=0, costs=[{"inference_cost": size} for size in sizes]
    )
    ensemble = list(rows)
    for name, (of, cost) in given.items():
        if name != TEACHERS:
            row = scoring.student_row(
                name, of, ensemble, student="", seed=0, inference_cost=cost
            )
            rows.append(row)
    # The seed of the sampled subsets, not of a training.
    return [{k: v for k, v in row.items() if k != "seed"} for row in rows]


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads arrays by name, those of students as 'NAME/array'."""
    if not path.exists():
        raise InputError("there is no such file or directory")
    if not path.is_dir():
        return storage.read_npz(path)
    arrays = {}
    for file in sorted([*path.glob("*.npy"), *path.glob("*/*.npy")]):
        name = "/".join(file.relative_to(path).with_suffix("").parts)
        arrays[name] = _read_npy(file)
    for file in sorted(path.glob("*.npz")):
        for name, array in storage.read_npz(file).items():
            arrays[f"{file.stem}/{name}"] = array
    if not arrays:
        raise InputError(
            "it has no arrays; accepted: .npy files such as test_probs.npy, or "
            "teachers.npz and a NAME.npz for each student"
        )
    return arrays


def _read_npy(path: pathlib.Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:  # damage can raise in any layer
        raise InputError(f"{path} cannot be read as an array: {error}") from error


def _parse(arrays: Arrays) -> dict[str, Given]:
    found: dict[str, dict[str, np.ndarray]] = {TEACHERS: {}}
    for full, array in arrays.items():
        owner, _, name = full.rpartition("/")
        owner = owner or TEACHERS
        accepted = [*_ARRAYS, *(["inference_cost"] if owner != TEACHERS else [])]
        if name not in accepted:
            nearest = difflib.get_close_matches(name, accepted, n=1, cutoff=0)[0]
            raise InputError(f"no array is named {full}; did you mean {nearest}?")
        if owner != TEACHERS and not PREDICTOR_NAME(owner):
            raise InputError(
                f"student {owner!r} cannot be named so; accepted: "
                f"{PREDICTOR_NAME.words}"
            )
        if name in found.setdefault(owner, {}):
            raise InputError(f"{full} is given twice")
        found[owner][name] = array
    labels = {split: _labels(found[TEACHERS], split) for split in _SPLITS}
    return {
        name: _predictor(name, of, labels, _num_classes(found[TEACHERS]))
        for name, of in found.items()
    }


def _labels(arrays: Arrays, split: str) -> np.ndarray:
    name = f"{split}_labels"
    if name not in arrays:
        raise InputError(f"{name} is missing; accepted: integers [N]")
    labels = arrays[name]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(
            f"{name} is {labels.dtype} of shape {labels.shape}; accepted: integers [N]"
        )
    return labels


def _num_classes(teachers: Arrays) -> int:
    """Returns K of the first array of probabilities or logits that there is."""
    for array in (teachers[n] for n in _ARRAYS if n in teachers and "labels" not in n):
        return array.shape[-1] if array.ndim else 0
    return 0


def _predictor(owner: str, arrays: Arrays, labels: Arrays, num_classes: int) -> Given:
    """Checks the arrays of one predictor; the labels are those of the teachers."""
    prefix = "" if owner == TEACHERS else f"{owner}/"
    for split in _SPLITS:
        own = arrays.get(f"{split}_labels", labels[split])
        if not np.array_equal(own, labels[split]):
            raise InputError(
                f"{prefix}{split}_labels differ from {split}_labels of the ensemble; "
                "accepted: predictions of the same images in the same order"
            )
    probs = {split: _probs(prefix, arrays, split) for split in _SPLITS}
    result = Predictions(
        probs["validation"], labels["validation"], probs["test"], labels["test"]
    )
    try:
        predictions.check_shapes(result)
    except InputError as error:
        raise InputError(f"{prefix or 'the ensemble: '}{error}") from error
    if (found := probs["test"].shape[-1]) != num_classes:
        raise InputError(
            f"{prefix}test_probs has {found} classes, the ensemble {num_classes}"
        )
    for split, of in labels.items():
        if of.min() < 0 or of.max() >= num_classes:
            raise InputError(
                f"{split}_labels has values from {of.min()} to {of.max()}; accepted: "
                f"classes 0 to {num_classes - 1}"
            )
    cost = np.asarray(arrays.get("inference_cost", len(result.test_probs)))
    if cost.shape or cost.dtype.kind not in "iuf" or not 0 < cost < np.inf:
        raise InputError(
            f"{prefix}inference_cost={cost!r}; accepted: a number above 0, in forward "
            "passes of one member"
        )
    return Given(result, float(cost))


def _probs(prefix: str, arrays: Arrays, split: str) -> np.ndarray:
    """Returns the probabilities of a split, float32 [S, N, K]."""
    names = [n for n in (f"{split}_probs", f"{split}_logits") if n in arrays]
    shape = "[M, N, K]" if not prefix else "[S, N, K], or [N, K] of one network"
    if len(names) != 1:
        raise InputError(
            f"{'both' if names else 'neither'} {prefix}{split}_probs "
            f"{'and' if names else 'nor'} {split}_logits given; accepted: one of them, "
            f"{shape}"
        )
    name, values = prefix + names[0], arrays[names[0]]
    if values.dtype.kind != "f":
        raise InputError(f"{name} is {values.dtype}; accepted: floating-point numbers")
    if prefix and values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or 0 in values.shape:
        stacked = "" if prefix else ", the members first (np.stack of their [N, K])"
        raise InputError(f"{name} has shape {values.shape}; accepted: {shape}{stacked}")
    convert = _from_probs if name.endswith("probs") else _from_logits
    # One member at a time bounds the memory of the float64 copies.
    return np.stack([convert(name, m, v) for m, v in _members(values)])


def _members(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    yield from ((m, member.astype(np.float64)) for m, member in enumerate(values))


def _from_probs(name: str, member: int, values: np.ndarray) -> np.ndarray:
    """Checks the probabilities [N, K] of a member."""
    bad = ~(values >= 0).all(-1)  # also NaN
    wrong = ~(np.abs(values.sum(-1) - 1) <= _ROW_SUM_TOLERANCE)
    if (bad | wrong).any():
        row = int(np.argmax(bad | wrong))
        what = f"sums to {values[row].sum():.4g}"
        if bad[row]:
            what = f"has the entry {values[row].min():.4g}"
        raise InputError(
            f"{name}[{member}, {row}] {what}; accepted: rows of probabilities that sum "
            f"to 1 (logits are given as {name.replace('probs', 'logits')})"
        )
    return values.astype(np.float32)


def _from_logits(name: str, member: int, values: np.ndarray) -> np.ndarray:
    """Checks the logits [N, K] of a member; returns their softmax."""
    top = values.max(-1, keepdims=True)
    bad = np.isnan(values).any(-1) | ~np.isfinite(top[:, 0])
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{name}[{member}, {row}] is {values[row]}; accepted: numbers, of which "
            "-inf (probability 0) may not be the largest"
        )
    if (values >= 0).all() and np.allclose(values.sum(-1), 1, atol=1e-3):
        raise InputError(
            f"{name} holds probabilities: its rows sum to 1; accepted: logits "
            f"(probabilities are given as {name.replace('logits', 'probs')})"
        )
    exponentials = np.exp(values - top)
    probs = exponentials / exponentials.sum(-1, keepdims=True)
    return probs.astype(np.float32)
