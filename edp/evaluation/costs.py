"""Costs of the networks of a run: parameters, time, floating-point operations.

`flops.flops` counts the operations on one device, with the gradients of convolutions
that most backends use, so that the counts do not depend on the hardware. It traces
shapes only.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from edp import distill, ensemble
from edp.experiment import clean_targets, distillation, restore
from edp.experiment.create import Experiment
from edp.experiment.run import Run
from edp.models import cpu_convolution
from edp.runtime import flops

Record = Mapping[str, Any]

_TX = optax.identity()  # the operations of an optimizer are not counted


class Operations(NamedTuple):
    """Floating-point operations of a student; None where they cannot be counted.

    Attributes:
      training: of all optimizer steps, and of targets computed before them.
      prediction: of the prediction of one image.
    """

    training: int | None
    prediction: int | None


def of_ensembles(run: Run, record: Record) -> list[dict[str, Any]]:
    """Computes the costs of the teachers' DE-1, ..., DE-M.

    Args:
      run: the run.
      record: the record of the teachers' stage.

    Returns:
      For each size `num_params`, `inference_cost` (in forward passes of one network),
      `train_seconds`, `train_flops` (of all optimizer steps; None for imported
      teachers) and `inference_flops` (of one image). A network trained once for all
      sizes counts in full in each. With groups, a member costs their mean, in forward
      passes of the network of `model`.
    """
    run = _in_one_program(run)
    if run.groups:
        return _of_groups(run, record)
    kind, num_members = run.kind, run.num_members
    section = run.teacher_dependencies["teachers"]
    model = run.build_teacher()
    state = jax.eval_shape(
        lambda: ensemble.create_state(model, _TX, run.key[None], run.example)
    )

    def step(state, batch):
        return ensemble.train_step(state, batch, run.key, model=model, tx=_TX)

    trained = None
    if "imported_from" not in record:
        batch = _batch(run, 1, section["batch_size"])
        trained = _times(_num_steps(run, section), _flops(step, state, batch))
    variables = {"params": state.params, **state.model_state}
    one = _flops(
        lambda variables, x: model.apply(ensemble.select(variables, 0), x, train=False),
        variables,
        run.example,
    )
    passes = _in_passes(run, one) if kind.passes is None else kind.passes
    return [
        {
            "num_params": record["num_params"] * kind.num_kept(size, section),
            "inference_cost": None if passes is None else size * passes,
            "train_seconds": record["train_seconds"]
            * kind.num_trained(size, section)
            / kind.num_trained(num_members, section),
            "train_flops": _times(kind.num_trained(size, section), trained),
            "inference_flops": _times(size, one),
        }
        for size in range(1, num_members + 1)
    ]


def _of_groups(run: Run, record: Record) -> list[dict[str, Any]]:
    """Computes `of_ensembles` for teachers of several groups."""
    groups = run.groups.items()
    rows = [of_ensembles(group, record["groups"][name])[-1] for name, group in groups]
    totals = {
        name: None if None in (own := [row[name] for row in rows]) else sum(own)
        for name in rows[0]
    }
    if totals["inference_flops"] is not None:
        totals["inference_cost"] = _in_passes(run, totals["inference_flops"])

    def share(value, size):
        if value is None:
            return None
        part = value * size / run.num_members
        return round(part) if isinstance(value, int) else part

    return [
        {name: share(value, size) for name, value in totals.items()}
        for size in range(1, run.num_members + 1)
    ]


def of_student(
    run: Run, name: str, record: Record, operations: Operations | None = None
) -> dict[str, Any]:
    """Computes the costs of one completed student, without its teachers' training.

    Args:
      run: the run.
      name: the student's name.
      record: the record of its stage.
      operations: from `count_student`; counted here if None.

    Returns:
      The fields of `of_ensembles`. `inference_cost` is a ratio of operations where the
      student does not know it. `train_flops` includes the forward passes of the
      teachers and the gradients of the perturbation.
    """
    operations = operations or count_student(run, name)
    inference_cost = restore.create_student(run, name).inference_cost
    if inference_cost is None:
        inference_cost = _in_passes(_in_one_program(run), operations.prediction)
    return {
        "num_params": record["num_params"],
        "inference_cost": inference_cost,
        "train_seconds": record["train_seconds"],
        "train_flops": operations.training,
        "inference_flops": operations.prediction,
    }


def count_ahead(experiment: Experiment) -> None:
    """Counts the operations of all students, for `counted`."""
    for name in experiment.run.students:
        operations = count_student(experiment.run, name)
        experiment.shared["operations", name] = operations


def counted(experiment: Experiment, name: str) -> Operations | None:
    """Returns the operations that `count_ahead` has counted, if it has."""
    return experiment.shared.get(("operations", name))


def count_student(run: Run, name: str) -> Operations:
    """Counts the operations of a student from its settings."""
    run = _in_one_program(run)
    section = run.students[name]
    student, tx, step = distillation.create_step(run, None, name)
    teachers = restore.teachers_like(run, run.build_teacher())
    state, variables = jax.eval_shape(
        lambda key, x, teachers: (
            distill.create_state(student, tx, key, x, teachers),
            student.finalise(student.init(key, x)),
        ),
        run.key,
        run.example,
        restore.with_first(run, teachers),
    )
    batch = _batch(run, section["batch_size"])
    before: int | None = 0
    if targets := clean_targets.like(run, name, state.params):
        num_train, num_members, num_classes = targets.shape
        shape = (num_members, section["batch_size"], num_classes)
        batch["teacher_logits"] = jax.ShapeDtypeStruct(shape, targets.dtype)
        logits_fn = restore.teacher_logits(run, None, run.build_teacher())
        before = _times(num_train, _flops(logits_fn, teachers, run.example))
    steps = _times(
        _num_steps(run, section), _flops(step, state, batch, run.key, teachers)
    )
    return Operations(
        None if before is None or steps is None else before + steps,
        _flops(student.predict, variables, run.example),
    )


def _in_passes(run: Run, count: int | None) -> float | None:
    """Divides a number of operations by that of a forward pass of a plain network.

    Returns None where either cannot be counted.
    """
    model = run.build_model()
    variables = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), run.key, run.example
    )
    one = _flops(lambda v, x: model.apply(v, x, train=False), variables, run.example)
    return None if count is None or one is None else count / one


def _in_one_program(run: Run) -> Run:
    """Returns the run with its teachers in one program, whatever their number."""
    config = run.config.copy_and_resolve_references()
    config.teachers.member_strategy = "vmap"
    return run._replace(config=config)


def _num_steps(run: Run, section: Mapping[str, Any]) -> int:
    """Returns the optimizer steps of the teachers' section or a student's."""
    return section["num_epochs"] * run.steps_per_epoch(section["batch_size"])


def _batch(run: Run, *sizes: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch [*sizes, ...]."""
    return {
        "image": jax.ShapeDtypeStruct((*sizes, *run.example.shape[1:]), np.float32),
        "label": jax.ShapeDtypeStruct(sizes, np.int32),
    }


def _flops(fn: Callable, *args: Any) -> int | None:
    """Counts the operations; returns None where they cannot be counted."""
    try:
        with cpu_convolution.plain_gradients():
            return flops.flops(fn, *args)
    except flops.Uncountable:
        return None


def _times(number: int, count: int | None) -> int | None:
    return None if count is None else number * count
