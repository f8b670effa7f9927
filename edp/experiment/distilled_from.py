"""Ties a student to the weights of the teachers that it is distilled from."""

import hashlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from edp.errors import InputError
from edp.experiment.run import Run
from edp.runtime import multihost, sharding, storage
from edp.runtime.stage import read_record

NAME = "teachers.json"


def digest(variables: Any) -> str:
    """Computes the SHA-256 of all arrays of a tree, with their paths, in hexadecimal.

    It depends on the values alone, not on files or sharding. Every process calls this.
    """
    hashed = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        array = sharding.fetch(jnp.asarray(leaf))
        name = jax.tree_util.keystr(path)
        hashed.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()


def record(run: Run, stage: pathlib.Path) -> None:
    """Writes `teachers.json` into a student's stage, unless it is there.

    Args:
      run: the run; its teachers are trained.
      stage: the directory of the student's stage, while its lock is held.
    """
    path = stage / NAME
    if not multihost.from_first(path.exists()):
        storage.write_json(path, {"weights": _weights(run)})


def check(run: Run, stage: pathlib.Path) -> None:
    """Compares the trained teachers with those that a student was distilled from.

    Accepts students of earlier versions, which did not record their teachers, and
    teachers that are not trained yet.

    Raises:
      InputError: if they are others, or the student's record is damaged.
    """
    path = stage / NAME
    stored = storage.read_mapping(path) if path.exists() else None
    stored, weights = multihost.from_first(stored), _weights(run)
    if stored is None or weights is None:
        return
    if "weights" not in stored:
        raise InputError(
            f"{path} is damaged: weights is missing; remove it if {run.teachers_dir} "
            "holds the teachers of this student"
        )
    if stored["weights"] != weights:
        raise InputError(
            f"{stage} was distilled from other teachers than those that "
            f"{run.teachers_dir} holds now; put those back, or remove {stage} to "
            "distil from these"
        )


def _weights(run: Run) -> str | None:
    """Returns the digest of the trained teachers; None before they are trained."""
    found = read_record(run.teachers_dir)
    # Earlier versions of this code recorded only the id of a training.
    return found and found.get("weights", found["id"])
