"""The stages of a run: where each lives, and what a finished one gives."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from edp import data, ensemble, models, students
from edp.errors import InputError
from edp.experiment import settings
from edp.experiment.create import Experiment
from edp.runtime import batched, best_epoch, checkpoint, rng, sharding, xla
from edp.runtime.stage import Stage, read_record


def teachers_record(experiment: Experiment) -> dict[str, Any]:
    """What the completed teachers' stage recorded.

    Raises:
      InputError: if they are not trained yet.
    """
    record = read_record(experiment.teachers_dir)
    if record is None:
        raise InputError(
            f"{experiment.teachers_dir} holds no completed teachers; run "
            "launch.train_teachers first, or launch.run for everything"
        )
    return record


def load_teachers(experiment: Experiment) -> tuple[models.Classifier, Any]:
    """The trained teachers: their network and its stacked variables.

    Raises:
      InputError: if they are not trained yet.
    """
    teachers_record(experiment)
    model = experiment.build_model()
    like = teachers_like(experiment, model)
    variables = _load_variables(experiment.teachers_dir / "variables", like)
    return model, put_teachers(experiment, variables)


def teachers_like(experiment: Experiment, model: models.Classifier) -> Any:
    """The shapes of the variables that a completed teachers' stage holds."""
    num_kept = experiment.kind.num_kept(experiment.num_members)
    keys = jax.random.split(experiment.key, num_kept)
    return jax.eval_shape(lambda: ensemble.init(model, keys, experiment.example))


def put_teachers(experiment: Experiment, variables: Any) -> Any:
    """Places the variables: spread like the members, where each has some of its own."""
    num_kept = experiment.kind.num_kept(experiment.num_members)
    axes = (sharding.MEMBER,) if num_kept == experiment.num_members else ()
    return sharding.put(variables, experiment.mesh, *axes)


def make_teachers(
    experiment: Experiment, model: models.Classifier, variables: Any
) -> ensemble.Teachers:
    """`Teachers` as the run is configured; to be made inside a jitted function."""
    # Of the seed that they were trained from, wherever that was.
    key = jax.random.key(experiment.teacher_dependencies["seed"])
    return experiment.kind.teachers(
        model,
        variables,
        experiment.num_members,
        rng.stream(key, "teachers", "masks"),
        strategy=experiment.config.teachers.member_strategy,
        mesh=experiment.mesh,
    )


def teacher_probs(
    experiment: Experiment, model: models.Classifier
) -> Callable[[Any, jax.Array], jax.Array]:
    """(stacked variables, x [B, ...]) -> the members' probabilities [M, B, K]."""

    def probs(variables, x):
        logits = make_teachers(experiment, model, variables).all_logits(x)
        return jax.nn.softmax(logits, axis=-1)

    return probs


def create_predict(
    experiment: Experiment, probs_fn: Callable[[Any, jax.Array], jax.Array]
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """What predicts in batches of `evaluation.batch_size`, compiled once.

    Args:
      experiment: the run.
      probs_fn: (variables, x [B, ...] in [0, 1]) -> probabilities [S, B, K].

    Returns:
      (variables, images [N, ...], uint8 or float32 in [0, 1]) -> probabilities
      [S, N, K].
    """
    compiled = jax.jit(
        lambda variables, x: probs_fn(
            variables, data.to_float(x) if x.dtype == np.uint8 else x
        ),
        compiler_options=xla.compiler_options(),
    )

    def predict(variables, images):
        return batched.predict_in_batches(
            functools.partial(compiled, variables),
            images,
            experiment.config.evaluation.batch_size,
        )

    return predict


def create_selection(
    experiment: Experiment,
    section: Mapping[str, Any],
    probs_fn: Callable[[Any, jax.Array], jax.Array],
    *,
    of_each: bool,
) -> best_epoch.Selection | None:
    """What `training.fit` selects epochs by; None to keep the last.

    Args:
      experiment: its validation images decide.
      section: `teachers`, or a student's settings.
      probs_fn: as in `create_predict`.
      of_each: see `selection.by_accuracy`.
    """
    if section["select"] == "last":
        return None
    predict = create_predict(experiment, probs_fn)
    images, labels = experiment.dataset.validation
    return best_epoch.by_accuracy(
        lambda variables: predict(variables, images), labels, of_each=of_each
    )


def create_teachers_selection(
    experiment: Experiment, model: models.Classifier
) -> best_epoch.Selection | None:
    """`create_selection` of the teachers, as their kind has it."""
    config = experiment.config.teachers
    probs_fn = teacher_probs(experiment, model)

    def by_accuracy(of_each):
        return create_selection(experiment, config, probs_fn, of_each=of_each)

    return experiment.kind.select(
        experiment.num_members, config.num_epochs, by_accuracy
    )


def complete(
    stage: Stage, variables: Any, record: Mapping[str, Any], num_networks: int
) -> None:
    """Saves what a stage has trained and marks it complete.

    Args:
      stage: where.
      variables: of all its networks.
      record: of `training.fit`; the parameters of one network are added.
      num_networks: how many are stacked in `variables`.
    """
    checkpoint.save_variables(stage.variables, variables)
    num_params = models.count_params(variables["params"]) // num_networks
    stage.complete({**record, "num_params": num_params})


def student_stage(experiment: Experiment, name: str) -> Stage:
    """The directory of one student.

    Raises:
      InputError: if it was begun with other settings.
    """
    dependencies = settings.student_dependencies(
        experiment.config, name, experiment.teacher_dependencies
    )
    return Stage(experiment.workdir / "students" / name, dependencies)


def create_student(experiment: Experiment, name: str) -> students.Student:
    """The student `name` of the configuration, as functions."""
    chosen = settings.student_settings(experiment.config, name)
    return students.create_student(
        chosen,
        experiment.build_model,
        num_members=experiment.num_members,
        training_steps=chosen["num_epochs"]
        * experiment.steps_per_epoch(chosen["batch_size"]),
    )


def load_student(experiment: Experiment, name: str) -> tuple[students.Student, Any]:
    """A completed student and its finished variables."""
    student = create_student(experiment, name)
    init = functools.partial(student.init, experiment.key)
    like = jax.eval_shape(lambda x: student.finalise(init(x)), experiment.example)
    stage = student_stage(experiment, name)
    variables = _load_variables(stage.variables, like)
    return student, sharding.put(variables, experiment.mesh)


def load_predictor(
    experiment: Experiment, name: str
) -> tuple[Callable[[Any, jax.Array], jax.Array], Any]:
    """The predictor 'teachers' or a completed student, and its variables.

    Returns:
      (variables, x [B, ...]) -> member probabilities [S, B, K], and the variables.
    """
    if name != "teachers":
        student, variables = load_student(experiment, name)
        return student.predict, variables
    model, variables = load_teachers(experiment)
    return teacher_probs(experiment, model), variables


def check_complete(directory: pathlib.Path) -> None:
    """Checks that the variables of a completed stage are as they were written.

    Raises:
      InputError: if not; names the file, and tells what to do.
    """
    with _of_complete(directory / "variables") as path:
        checkpoint.check_variables(path)


def _load_variables(path: pathlib.Path, like: Any) -> Any:
    with _of_complete(path):
        return checkpoint.load_variables(path, like)


@contextlib.contextmanager
def _of_complete(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Has errors about the variables of a completed stage tell what to do."""
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
