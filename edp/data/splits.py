"""Which examples of a source train, validate and test, and how that is kept."""

import hashlib
import operator
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from edp.errors import InputError
from edp.runtime import storage


class Indices(NamedTuple):
    """Chosen examples, sorted int64 indices.

    `train` counts in the source's training examples. So does `validation`, unless
    the source has validation examples of its own, in which case it counts in them.
    """

    train: np.ndarray
    validation: np.ndarray


class Plan(NamedTuple):
    """A split that is to be drawn: the labels it is drawn from and checked sizes."""

    train_labels: np.ndarray
    own_validation_labels: np.ndarray | None
    train_size: int
    validation_size: int
    validation: str
    seed: int


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

    A class with a share of `size * n_k / N` gets the whole part of it; what is
    missing goes, one each, to the classes with the largest remainders (to the
    lower label where two are equal).

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
    """Returns a stratified subset that is the same in every run.

    Args:
      labels: labels [N].
      name: the setting which gives `size`, for the message.
      size: number of examples; None for all.

    Raises:
      InputError: if `size` is not an integer from 1 to N.
    """
    size = len(labels) if size is None else check_size(name, size, len(labels))
    return stratified_indices(np.random.default_rng(0), labels, size)


def _last_indices(
    rng: np.random.Generator, labels: np.ndarray, size: int
) -> np.ndarray:
    del rng
    return np.arange(len(labels) - size, len(labels))


HOLD_OUT = {"stratified": stratified_indices, "last": _last_indices}


def plan_split(
    train_labels: np.ndarray,
    own_validation_labels: np.ndarray | None,
    *,
    train_size: int | None,
    validation_size: int | None,
    validation: str,
    seed: int,
) -> Plan:
    """Checks the settings of a split against the labels it is drawn from.

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
    return Plan(
        train_labels,
        own_validation_labels,
        train_size,
        validation_size,
        validation,
        int(seed),
    )


def draw_indices(plan: Plan) -> Indices:
    """Draws the examples of a plan; the same plan always gives the same ones.

    Validation is drawn first, so it does not depend on the training size.
    """
    rng = np.random.default_rng(plan.seed)
    rest = np.arange(len(plan.train_labels))
    if plan.own_validation_labels is None:
        hold_out = HOLD_OUT[plan.validation]
        validation = hold_out(rng, plan.train_labels, plan.validation_size)
        rest = np.setdiff1d(rest, validation, assume_unique=True)
    else:
        validation = stratified_indices(
            rng, plan.own_validation_labels, plan.validation_size
        )
    chosen = stratified_indices(rng, plan.train_labels[rest], plan.train_size)
    return Indices(train=rest[chosen], validation=validation)


def stored_indices(
    plan: Plan, path: str | os.PathLike, labels: Mapping[str, np.ndarray] | None = None
) -> Indices:
    """Returns the split kept in the file `path`, drawing and writing it if absent.

    A stored split outlives changes in the random number generator, and a resumed
    run is certain to train on the examples it began with.

    Args:
      plan: what is drawn.
      path: of the `.npz`.
      labels: of parts of the source, to be kept in a file that is written, for
        `stored_labels`.

    Raises:
      InputError: if the file cannot be read, was made with other settings or for
        other data.
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
        found = stored[key].tolist() if key in stored else None
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
    """The labels that are kept with a split, by part; none where there are none."""
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
    """What a stored split must have in common with the one asked for."""
    own = plan.own_validation_labels
    digest = hashlib.sha256(np.ascontiguousarray(plan.train_labels, np.int32))
    digest.update(b"" if own is None else np.ascontiguousarray(own, np.int32))
    return {
        "seed": plan.seed,
        "train_size": plan.train_size,
        "validation_size": plan.validation_size,
        "validation": plan.validation if own is None else "the source's own",
        "num_examples": len(plan.train_labels),
        "labels_sha256": digest.hexdigest(),
    }


def _checked_indices(stored: dict[str, np.ndarray], plan: Plan) -> Indices | None:
    """Returns stored indices if they are distinct, in range, disjoint and complete."""
    own = plan.own_validation_labels
    num_train = len(plan.train_labels)
    limits = (num_train, num_train if own is None else len(own))
    sizes = (plan.train_size, plan.validation_size)
    parts = []
    for name, size, limit in zip(Indices._fields, sizes, limits, strict=True):
        array = stored.get(f"{name}_indices", np.empty(0))
        if array.shape != (size,) or not np.issubdtype(array.dtype, np.integer):
            return None
        if array.min() < 0 or array.max() >= limit or np.unique(array).size != size:
            return None
        parts.append(array)
    if own is None and np.intersect1d(*parts).size:
        return None
    return Indices(*parts)
