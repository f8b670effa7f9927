"""Kinds of student. To add one, write a file here and add a line to `STUDENTS`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from edp.errors import InputError
from edp.students.batch_ensemble import batch_ensemble
from edp.students.bridge import bridge
from edp.students.dirichlet import dirichlet
from edp.students.flow import flow
from edp.students.functional import functional
from edp.students.hydra import hydra
from edp.students.latent_batch_ensemble import latent_batch_ensemble
from edp.students.mimo import mimo
from edp.students.packed import packed
from edp.students.single import single
from edp.students.source import Source, create_source
from edp.students.student import DistillBatch, Student

__all__ = [
    "STUDENTS",
    "DistillBatch",
    "Source",
    "Student",
    "create_source",
    "create_student",
]

STUDENTS: dict[str, Callable[..., Student]] = {
    "single": single,
    "batch_ensemble": batch_ensemble,
    "latent_batch_ensemble": latent_batch_ensemble,
    "hydra": hydra,
    "mimo": mimo,
    "packed": packed,
    "dirichlet": dirichlet,
    "functional": functional,
    "bridge": bridge,
    "flow": flow,
}


def create_student(
    config: Mapping[str, Any],
    build_model: Callable,
    *,
    num_members: int,
    training_steps: int,
    seed: int = 0,
    source: Source | None = None,
) -> Student:
    """Creates the student named in `config`.

    Args:
      config: a mapping with `student` (a name in `STUDENTS`) and the settings of
        that kind (`alpha`, `temperature`, ...); other keys are ignored.
      build_model: builds the network: a plain one without arguments, otherwise with
        those keywords of `models.create_model` that a student sets (`num_members`...).
      num_members: M of the teachers.
      training_steps: number of training steps.
      seed: fixes the noise in the predictions of `bridge` and `flow`; the samples of
        `functional` are the same for every seed.
      source: member 0 of the teachers, for students that contain it; None: the
        network that `build_model()` returns.

    Raises:
      InputError: for an unknown kind, or a network without `init` and `apply`.
    """
    name = config["student"]
    if name not in STUDENTS:
        raise InputError(
            f"student={name!r} is not known; accepted: {', '.join(STUDENTS)}"
        )
    parameters = inspect.signature(STUDENTS[name]).parameters.values()
    accepted = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    derived = {"num_members": num_members, "training_steps": training_steps}
    given = {**config, **derived, "seed": seed, "source": source}
    settings = {k: given[k] for k in accepted if k in given}

    def build_checked(*args, **kwargs):
        model = build_model(*args, **kwargs)
        for method in ("init", "apply"):
            if not callable(getattr(model, method, None)):
                raise InputError(
                    f"build_model returns a {type(model).__name__} without {method}; "
                    "accepted: a flax.linen.Module, or an NNX module as "
                    "edp.models.from_nnx.NNXModel(create)"
                )
        return model

    return STUDENTS[name](build_checked, **settings)
