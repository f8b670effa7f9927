"""Kinds of student. A new one is a file here and a line in `STUDENTS`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from edp.errors import InputError
from edp.students.batch_ensemble import batch_ensemble
from edp.students.record import DistillBatch, Student
from edp.students.single import single

__all__ = ["STUDENTS", "DistillBatch", "Student", "create_student"]

STUDENTS: dict[str, Callable[..., Student]] = {
    "single": single,
    "batch_ensemble": batch_ensemble,
}


def create_student(
    config: Mapping[str, Any], build_model: Callable, *, num_members: int
) -> Student:
    """The student that `config` names.

    Args:
      config: a mapping with `student` (a name in `STUDENTS`) and the settings of
        that kind (`alpha`, `temperature`, ...); others are left alone.
      build_model: makes the network; takes `num_members` and `factor_init` for a
        BatchEnsemble, nothing for a plain one.
      num_members: M of the teachers.

    Raises:
      InputError: for an unknown kind.
    """
    name = config["student"]
    if name not in STUDENTS:
        raise InputError(
            f"student={name!r} is not known; accepted: {', '.join(STUDENTS)}"
        )
    parameters = inspect.signature(STUDENTS[name]).parameters.values()
    accepted = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    settings = {k: config[k] for k in accepted if k in config}
    if "num_members" in accepted:
        settings["num_members"] = num_members
    return STUDENTS[name](build_model, **settings)
