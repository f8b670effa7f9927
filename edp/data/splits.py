"""Training, validation and test indices, and the file that stores them."""

import hashlib
import operator
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from edp.data.arrays import Split
from edp.errors import InputError
from edp.runtime import multihost, storage


class Indices(NamedTuple):
    """Chosen examples as sorted int64 indices.

    `train` indexes the source's training examples. So do `validation` and
    `calibration`, unless the source has a validation split, which they then index.
    The parts are disjoint.
    """

    train: np.ndarray
    validation: np.ndarray
    calibration: np.ndarray


class Plan(NamedTuple):
    """Arguments of a draw: the labels to draw from, and checked sizes."""

    train_labels: np.ndarray
    own_validation_labels: np.ndarray | None
    train_size: int
    validation_size: int
    validation: str
    seed: int
    calibration_size: int


def check_size(name: str, value: Any, largest: int | None = None) -> int:
    """Returns the setting `name` as an int from 1 to `largest`, or raises."""
    accepted = "at least 1" if largest is None else f"1 to {largest}"
    try:
        size = operator.index(value)
    except TypeError:
        size = 0
    if isinstance(value, bool) or size < 1 or (largest is not None and size > largest):
        raise InputError(f"data.{name} is {value!r}; it must be an integer, {accepted}")
    return size


def stratified_indices(
    rng: np.random.Generator, labels: np.ndarray, size: int
) -> np.ndarray:
    """Draws `size` examples, each class in proportion to its share.

    Class k with n_k examples gets floor(size * n_k / N); the remaining examples go,
    one each, to the classes with the largest remainders (ties: the lower label).

    Args:
      rng: generator that permutes each class; the first examples are taken.
      labels: labels [N].
      size: number of examples, 0 to N.

    Returns:
      Sorted indices int64 [size] into `labels`.
    """
    classes, counts = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(size * counts, max(len(labels), 1))
    missing = size - quotas.sum()
    quotas[np.argsort(-remainders, kind="stable")[:missing]] += 1
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def fixed_subset(labels: np.ndarray, name: str, size: int | None) -> np.ndarray:
    """Returns the indices of a stratified subset that is the same in every run.

    Args:
      labels: labels [N].
      name: setting of `size` within `data`, for the message.
      size: number of examples; None for all.

    Raises:
      InputError: if `size` is not an integer from 1 to N.
    """
    size = len(labels) if size is None else check_size(name, size, len(labels))
    return stratified_indices(np.random.default_rng(0), labels, size)


def fixed_part(split: Split, size: int | None) -> Split:
    """Returns a stratified subset of at most `size` examples, the same in every run.

    Args:
      split: N examples.
      size: number of examples; None or more than N: all.
    """
    size = len(split.labels) if size is None else min(size, len(split.labels))
    return split.select(fixed_subset(split.labels, "test_size", size))


def _last_indices(
    rng: np.random.Generator, labels: np.ndarray, size: int
) -> np.ndarray:
    del rng
    return np.arange(len(labels) - size, len(labels))


# Fields that stored splits did not always have, and their value then.
_DEFAULT_BEFORE = {"calibration_size": 0}
HOLD_OUT = {"stratified": stratified_indices, "last": _last_indices}


def plan_split(
    train_labels: np.ndarray,
    own_validation_labels: np.ndarray | None,
    *,
    train_size: int | None,
    validation_size: int | None,
    validation: str,
    seed: int,
    calibration_size: int | None = None,
) -> Plan:
    """Checks the settings of a draw against the labels.

    `calibration_size` of the validation examples are for calibration instead.

    Raises:
      InputError: if a size does not fit, or `validation` or `seed` is wrong.
    """
    if validation not in HOLD_OUT:
        accepted = ", ".join(repr(name) for name in HOLD_OUT)
        raise InputError(
            f"data.validation is {validation!r}; it must be one of {accepted}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed is {seed!r}; it must be an integer, 0 or more")
    available = len(train_labels)
    if own_validation_labels is not None:
        largest = len(own_validation_labels)
        validation_size = largest if validation_size is None else validation_size
        validation_size = check_size("validation_size", validation_size, largest)
    else:
        if available < 2:
            raise InputError(
                "one training example cannot be split into training and validation"
            )
        validation_size = check_size("validation_size", validation_size, available - 1)
        available -= validation_size
    train_size = available if train_size is None else train_size
    train_size = check_size("train_size", train_size, available)
    if calibration_size is not None:
        largest = validation_size - 1
        check_size("calibration_size", calibration_size, largest)
    return Plan(
        train_labels,
        own_validation_labels,
        train_size,
        validation_size,
        validation,
        int(seed),
        calibration_size or 0,
    )


def draw_indices(plan: Plan) -> Indices:
    """Draws the examples of a plan; deterministic given the plan.

    Validation is drawn first, so it does not depend on the training size.

    Raises:
      InputError: if the held-out examples are all of a class with several examples.
    """
    rng = np.random.default_rng(plan.seed)
    rest = np.arange(len(plan.train_labels))
    if plan.own_validation_labels is None:
        hold_out = HOLD_OUT[plan.validation]
        validation = hold_out(rng, plan.train_labels, plan.validation_size)
        rest = np.setdiff1d(rest, validation, assume_unique=True)
        lost = _missing(plan.train_labels[rest], plan.train_labels)
        lost = lost[[(plan.train_labels == label).sum() > 1 for label in lost]]
        if lost.size:
            raise InputError(
                f"data.validation={plan.validation!r} with data.validation_size="
                f"{plan.validation_size} takes all training images of the classes with "
                f"labels {_listed(lost)}; use 'stratified' for data that are ordered "
                "by class, or a smaller size"
            )
    else:
        validation = stratified_indices(
            rng, plan.own_validation_labels, plan.validation_size
        )
    chosen = stratified_indices(rng, plan.train_labels[rest], plan.train_size)
    labels = _held_out_labels(plan)
    calibrates = stratified_indices(rng, labels[validation], plan.calibration_size)
    return Indices(
        train=rest[chosen],
        validation=np.delete(validation, calibrates),
        calibration=validation[calibrates],
    )


def _held_out_labels(plan: Plan) -> np.ndarray:
    """Returns the labels that the validation examples are drawn from."""
    own = plan.own_validation_labels
    return plan.train_labels if own is None else own


def warn_missing_classes(every: np.ndarray, parts: Mapping[str, np.ndarray]) -> None:
    """Warns about classes among the labels `every` that a split has no images of.

    Args:
      every: labels of all training examples of the source.
      parts: labels by the name of the split.
    """
    for name, labels in parts.items():
        lost = _missing(labels, every)
        if lost.size:
            multihost.warn(
                f"the {name} split ({len(labels)} images) has none of the classes with "
                f"labels {_listed(lost)}"
            )


def _missing(labels: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.setdiff1d(of, labels)


def _listed(labels: np.ndarray) -> str:
    text = ", ".join(map(str, labels[:10].tolist()))
    return text if len(labels) <= 10 else f"{text}, ... ({len(labels)} in all)"


def stored_indices(
    plan: Plan, path: str | os.PathLike, labels: Mapping[str, np.ndarray] | None = None
) -> Indices:
    """Returns the indices stored in `path`; draws and writes them if it is absent.

    Stored indices do not depend on NumPy's random number generator, so a resumed
    run trains on the same examples whatever the version.

    Args:
      plan: of the draw.
      path: the `.npz` file.
      labels: of the source's splits, stored in a new file for `stored_labels`.

    Raises:
      InputError: if the file cannot be read, or was made with other settings or data.
    """
    path = storage.as_path(path)
    if not path.exists():
        indices = draw_indices(plan)
        arrays = {f"{part}_indices": array for part, array in indices._asdict().items()}
        kept = {f"{part}_labels": array for part, array in (labels or {}).items()}
        storage.write_npz(path, {**_description(plan), **arrays, **kept})
        return indices
    stored = storage.read_npz(path)
    for key, expected in _description(plan).items():
        found = stored[key].tolist() if key in stored else _DEFAULT_BEFORE.get(key)
        if found != expected:
            raise InputError(
                f"the split stored in {path} has {key} {found!r}, but it is "
                f"{expected!r} now; restore the setting or the data, or use a new "
                "directory"
            )
    indices = _checked_indices(stored, plan)
    if indices is None:
        raise InputError(f"the indices stored in {path} do not fit its settings")
    return indices


def stored_labels(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Returns the labels stored with the indices, by split; empty if none are."""
    if not storage.as_path(path).exists():
        return {}
    suffix = "_labels"
    stored = storage.read_npz(path)
    return {
        name.removesuffix(suffix): array
        for name, array in stored.items()
        if name.endswith(suffix)
    }


def _description(plan: Plan) -> dict[str, Any]:
    """Returns the fields that must equal those of a stored split."""
    own = plan.own_validation_labels
    digest = hashlib.sha256(np.ascontiguousarray(plan.train_labels, np.int32))
    digest.update(b"" if own is None else np.ascontiguousarray(own, np.int32))
    return {
        "seed": plan.seed,
        "train_size": plan.train_size,
        "validation_size": plan.validation_size,
        "calibration_size": plan.calibration_size,
        "validation": plan.validation if own is None else "the source's own",
        "num_examples": len(plan.train_labels),
        "labels_sha256": digest.hexdigest(),
    }


def _checked_indices(stored: dict[str, np.ndarray], plan: Plan) -> Indices | None:
    """Returns stored indices if they are distinct, in range, disjoint and complete."""
    own = plan.own_validation_labels
    num_train = len(plan.train_labels)
    num_held_out = len(_held_out_labels(plan))
    limits = (num_train, num_held_out, num_held_out)
    calibration_size = plan.calibration_size
    sizes = (plan.train_size, plan.validation_size - calibration_size, calibration_size)
    parts = []
    for name, size, limit in zip(Indices._fields, sizes, limits, strict=True):
        array = stored.get(f"{name}_indices", np.empty(0, np.int64))
        if array.shape != (size,) or not np.issubdtype(array.dtype, np.integer):
            return None
        if size and (array.min() < 0 or array.max() >= limit):
            return None
        parts.append(array)
    # Without validation examples of its own, all index the training examples.
    train, *held_out = parts
    apart = (
        [np.concatenate(parts)] if own is None else [train, np.concatenate(held_out)]
    )
    if any(np.unique(array).size != array.size for array in apart):
        return None
    return Indices(*parts)
