"""Stages of a run: their directories, and their trained networks restored."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from edp import data, ensemble, models, students
from edp.errors import InputError
from edp.experiment import distilled_from, settings
from edp.experiment.create import Experiment
from edp.experiment.run import Run
from edp.runtime import batched, best_epoch, checkpoint, rng, sharding, xla
from edp.runtime.stage import Stage, read_record


def teachers_record(run: Run) -> dict[str, Any]:
    """Reads the record of the completed teachers' stage.

    Raises:
      InputError: if they are not trained yet.
    """
    record = read_record(run.teachers_dir)
    if record is None:
        raise InputError(
            f"{run.teachers_dir} holds no completed teachers; run "
            "launch.train_teachers first, or launch.run for everything"
        )
    return record


def load_teachers(run: Run, mesh: Mesh | None) -> tuple[Any, Any]:
    """Loads the trained teachers: their network and its stacked variables, by group.

    Raises:
      InputError: if they are not trained yet.
    """
    teachers_record(run)
    model = run.build_teacher()
    like = teachers_like(run, model)
    variables = _load_variables(run.teachers_dir / "variables", like)
    return model, put_teachers(run, mesh, variables)


def teachers_like(run: Run, model: Any) -> Any:
    """Returns the shapes of the variables in a completed teachers' stage."""
    if groups := run.groups:
        return {n: teachers_like(group, model[n]) for n, group in groups.items()}
    num_kept = run.num_kept
    keys = jax.random.split(run.key, num_kept)
    return jax.eval_shape(lambda: ensemble.init(model, keys, run.example))


def put_teachers(run: Run, mesh: Mesh | None, variables: Any) -> Any:
    """Places the teachers' variables: split over members, or replicated if shared."""
    if groups := run.groups:
        return {n: put_teachers(g, mesh, variables[n]) for n, g in groups.items()}
    num_kept = run.num_kept
    axes = (sharding.MEMBER,) if num_kept == run.num_members else ()
    return sharding.put(variables, mesh, *axes)


def make_teachers(
    run: Run, mesh: Mesh | None, model: Any, variables: Any
) -> ensemble.Teachers:
    """Creates the run's `Teachers`, inside a jitted function."""
    if groups := run.groups:
        return ensemble.teachers_from_groups(
            [make_teachers(g, mesh, model[n], variables[n]) for n, g in groups.items()]
        )
    return run.kind.teachers(
        model,
        variables,
        run.num_members,
        _key_of_masks(run),
        strategy=run.config.teachers.member_strategy,
        mesh=mesh,
    )


def _key_of_masks(run: Run) -> jax.Array:
    # The seed that they were trained from, in this run or another.
    key = jax.random.key(run.teacher_dependencies["seed"])
    return rng.stream(key, "teachers", "masks")


def teacher_logits(
    run: Run, mesh: Mesh | None, model: Any
) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns (stacked variables, x [B, ...]) -> member logits [M, B, K]."""

    def logits(variables, x):
        return make_teachers(run, mesh, model, variables).all_logits(x)

    return logits


def teacher_probs(
    run: Run, mesh: Mesh | None, model: Any
) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns (stacked variables, x [B, ...]) -> member probabilities [M, B, K]."""
    logits = teacher_logits(run, mesh, model)
    return lambda variables, x: jax.nn.softmax(logits(variables, x), axis=-1)


def create_predict(
    probs_fn: Callable[[Any, jax.Array], jax.Array],
    batch_size: int,
    *,
    runs_briefly: bool = False,
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Jits a function once, to predict in batches.

    Args:
      probs_fn: (variables, x [B, ...] in [0, 1]) -> probabilities [S, B, K].
      batch_size: B.
      runs_briefly: see `xla.compiler_options`.

    Returns:
      (variables, images [N, ...], uint8 or float32 in [0, 1]) -> probabilities
      [S, N, K].
    """
    compiled = jax.jit(
        lambda variables, x: probs_fn(
            variables, data.to_float(x) if x.dtype == np.uint8 else x
        ),
        compiler_options=xla.compiler_options(runs_briefly=runs_briefly),
    )

    def predict(variables, images):
        return batched.predict_in_batches(
            functools.partial(compiled, variables),
            images,
            batch_size,
        )

    return predict


def create_selection(
    experiment: Experiment,
    section: Mapping[str, Any],
    probs_fn: Callable[[Any, jax.Array], jax.Array],
    *,
    of_each: bool,
) -> best_epoch.Selection | None:
    """Returns how `loop.fit` selects the epoch to keep; None keeps the last.

    Args:
      experiment: the run; selection uses its validation images.
      section: the `teachers` section, or a student's settings.
      probs_fn: as in `create_predict`.
      of_each: see `best_epoch.by_accuracy`.
    """
    if section["select"] == "last":
        return None
    batch_size = experiment.run.config.evaluation.batch_size
    predict = create_predict(probs_fn, batch_size)
    images, labels = experiment.data.dataset.validation
    return best_epoch.by_accuracy(
        lambda variables: predict(variables, images), labels, of_each=of_each
    )


def create_teachers_selection(
    experiment: Experiment, model: models.Classifier
) -> best_epoch.Selection | None:
    """Returns `create_selection` of the teachers, which depends on their kind."""
    run, mesh = experiment.run, experiment.mesh
    config = run.config.teachers
    probs_fn = teacher_probs(run, mesh, model)

    def by_accuracy(of_each):
        return create_selection(experiment, config, probs_fn, of_each=of_each)

    return run.kind.select(config, by_accuracy)


def complete(
    stage: Stage, variables: Any, record: Mapping[str, Any], num_networks: int
) -> None:
    """Saves the variables of a stage and marks it complete.

    Args:
      stage: the stage.
      variables: the variables of all its networks.
      record: from `loop.fit`; the number of parameters of one network and the digest
        of all variables are added.
      num_networks: number of networks stacked in `variables`.
    """
    checkpoint.save_variables(stage.variables, variables)
    num_params = models.count_params(_parameters(variables)) // num_networks
    weights = distilled_from.digest(variables)
    stage.complete({**record, "num_params": num_params, "weights": weights})


def _parameters(variables: Any) -> Any:
    """Removes the running statistics, also of networks within a collection."""
    if not isinstance(variables, Mapping):
        return variables
    return {k: _parameters(v) for k, v in variables.items() if k != "batch_stats"}


def student_stage(run: Run, name: str) -> Stage:
    """Opens the stage of one student.

    Raises:
      InputError: if it was begun with other settings, or from other teachers.
    """
    dependencies = settings.student_dependencies(
        run.config, run.students[name], run.teacher_dependencies
    )
    stage = Stage(run.workdir / "students" / name, dependencies)
    distilled_from.check(run, stage.path)
    return stage


def create_student(run: Run, name: str) -> students.Student:
    """Creates a student of the run from its settings."""
    chosen = run.students[name]
    return students.create_student(
        chosen,
        run.build_model,
        num_members=run.num_members,
        training_steps=chosen["num_epochs"] * run.steps_per_epoch(chosen["batch_size"]),
        seed=run.config.seed,
        source=create_source(run),
    )


def with_first(run: Run, variables: Any) -> Any:
    """Returns the stacked variables that begin with member 0's: of the first group."""
    return variables[next(iter(groups))] if (groups := run.groups) else variables


def create_source(run: Run) -> students.Source:
    """Creates member 0 of the teachers as a part of students."""
    run = next(iter(run.groups.values()), run)
    rngs = run.kind.first_rngs(run.num_members, _key_of_masks(run))
    return students.create_source(run.build_teacher(), rngs)


def load_student(
    run: Run, mesh: Mesh | None, name: str
) -> tuple[students.Student, Any]:
    """Loads a completed student: its functions and its finished variables."""
    student = create_student(run, name)
    init = functools.partial(student.init, run.key)
    like = jax.eval_shape(lambda x: student.finalise(init(x)), run.example)
    stage = student_stage(run, name)
    variables = _load_variables(stage.variables, like)
    return student, sharding.put(variables, mesh)


def load_predictor(
    run: Run, mesh: Mesh | None, name: str
) -> tuple[Callable[[Any, jax.Array], jax.Array], Any]:
    """Loads the predictor 'teachers', or a completed student.

    Returns:
      (variables, x [B, ...]) -> member probabilities [S, B, K], and the variables.
    """
    if name != "teachers":
        student, variables = load_student(run, mesh, name)
        return student.predict, variables
    model, variables = load_teachers(run, mesh)
    return teacher_probs(run, mesh, model), variables


def check_complete(directory: pathlib.Path) -> None:
    """Checks the variables of a completed stage against their checksums.

    Raises:
      InputError: if they differ; names the file and the remedy.
    """
    with _of_complete(directory / "variables") as path:
        checkpoint.check_variables(path)


def _load_variables(path: pathlib.Path, like: Any) -> Any:
    with _of_complete(path):
        return checkpoint.load_variables(path, like)


@contextlib.contextmanager
def _of_complete(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Adds the remedy to errors about the variables of a completed stage."""
    if not path.exists():
        raise InputError(
            f"{path} is missing, though its stage is complete; put it back, or remove "
            f"{path.with_name('complete.json')} to have it made again"
        )
    try:
        yield path
    except InputError as error:
        raise InputError(
            f"{error}, though its stage is complete; put it back, or remove it and "
            f"{path.with_name('complete.json')} to have it made again from the stage's "
            "last checkpoint"
        ) from error
