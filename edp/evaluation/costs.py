"""What the networks of a run cost: parameters, time, floating-point operations.

Operations are those of `flops.flops`, on one device, with the gradients of convolutions
that most backends take: the same wherever a run was made. Nothing is computed; shapes
are enough.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

from edp import distill, ensemble
from edp.experiment import restore, settings, train
from edp.experiment.create import Experiment
from edp.models import cpu_convolution
from edp.runtime import flops

Record = Mapping[str, Any]

_TX = optax.identity()  # an optimizer has nothing that is counted


def of_ensembles(experiment: Experiment, record: Record) -> list[dict[str, Any]]:
    """The costs of the teachers' DE-1, ..., DE-M.

    Args:
      experiment: the run.
      record: of the teachers' stage.

    Returns:
      For each size `num_params`, `inference_cost` (in passes of one network),
      `train_seconds`, `train_flops` (of all optimizer steps; None where they were
      trained elsewhere) and `inference_flops` (of one image). What is trained once for
      all sizes is counted in full in each.
    """
    experiment = _plain(experiment)
    kind, num_members = experiment.kind, experiment.num_members
    section = experiment.teacher_dependencies["teachers"]
    model = experiment.build_model()
    state = jax.eval_shape(
        lambda: ensemble.create_state(
            model, _TX, experiment.key[None], experiment.example
        )
    )

    def step(state, batch):
        return ensemble.train_step(state, batch, experiment.key, model=model, tx=_TX)

    trained = None
    if "imported_from" not in record:
        batch = _batch(experiment, 1, section["batch_size"])
        trained = _times(_num_steps(experiment, section), _flops(step, state, batch))
    variables = {"params": state.params, **state.model_state}
    one = _flops(
        lambda variables, x: model.apply(ensemble.select(variables, 0), x, train=False),
        variables,
        experiment.example,
    )
    return [
        {
            "num_params": record["num_params"] * kind.num_kept(size),
            "inference_cost": size,
            "train_seconds": record["train_seconds"]
            * kind.num_trained(size)
            / kind.num_trained(num_members),
            "train_flops": _times(kind.num_trained(size), trained),
            "inference_flops": _times(size, one),
        }
        for size in range(1, num_members + 1)
    ]


def of_student(experiment: Experiment, name: str, record: Record) -> dict[str, Any]:
    """The costs of one completed student, its teachers' training left out.

    Args:
      experiment: the run.
      name: of the student.
      record: of its stage.

    Returns:
      The fields that `of_ensembles` has. The operations of training are those of its
      steps as they are: the teachers' passes and the perturbation's gradients too.
    """
    experiment = _plain(experiment)
    section = settings.student_settings(experiment.config, name)
    student, tx, step = train.create_distillation(experiment, name)
    state, variables = jax.eval_shape(
        lambda key, x: (
            distill.create_state(student, tx, key, x),
            student.finalise(student.init(key, x)),
        ),
        experiment.key,
        experiment.example,
    )
    teachers = restore.teachers_like(experiment, experiment.build_model())
    batch = _batch(experiment, section["batch_size"])
    return {
        "num_params": record["num_params"],
        "inference_cost": student.inference_cost,
        "train_seconds": record["train_seconds"],
        "train_flops": _times(
            _num_steps(experiment, section),
            _flops(step, state, batch, experiment.key, teachers),
        ),
        "inference_flops": _flops(student.predict, variables, experiment.example),
    }


def _plain(experiment: Experiment) -> Experiment:
    """The run on one device, its teachers in one program however many there are."""
    config = experiment.config.copy_and_resolve_references()
    config.teachers.member_strategy = "vmap"
    return experiment._replace(config=config, mesh=None)


def _num_steps(experiment: Experiment, section: Mapping[str, Any]) -> int:
    """Optimizer steps, for the teachers' section or a student's."""
    return section["num_epochs"] * experiment.steps_per_epoch(section["batch_size"])


def _batch(experiment: Experiment, *sizes: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch [*sizes, ...]."""
    return {
        "image": jax.ShapeDtypeStruct(
            (*sizes, *experiment.example.shape[1:]), np.float32
        ),
        "label": jax.ShapeDtypeStruct(sizes, np.int32),
    }


def _flops(fn: Callable, *args: Any) -> int | None:
    """None where they cannot be counted."""
    try:
        with cpu_convolution.plain_gradients():
            return flops.flops(fn, *args)
    except flops.Uncountable:
        return None


def _times(number: int, count: int | None) -> int | None:
    return None if count is None else number * count
