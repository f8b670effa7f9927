"""Checks that a configuration fits its workdir, its data and its devices."""

import functools
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from edp import ensemble, models, perturbations, students
from edp.errors import InputError
from edp.experiment import settings
from edp.experiment.run import Run, model_builder
from edp.runtime import multihost, optimizers, sharding
from edp.runtime.stage import Stage, different_settings, read_record

# Settings that a warning names.
_MOST_SHOWN = 4


def check_stages(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    teacher_dependencies: Mapping[str, Any],
    student_settings: Mapping[str, Mapping[str, Any]],
) -> None:
    """Checks that no stage was begun with other settings, before any work is done.

    Args:
      config: a configuration that `validate.check` accepts.
      workdir: the directory of the run.
      teacher_dependencies: every setting that the teachers depend on.
      student_settings: from `settings.resolve_students`.

    Raises:
      InputError: names the stage and the settings that differ.
    """
    if config.teachers_workdir is None:
        Stage(workdir / "teachers", teacher_dependencies)
    advice = (
        "go back to those, or give another --workdir with --config.teachers_workdir="
        f"{config.teachers_workdir or workdir}, which reuses the teachers"
    )
    for name, section in student_settings.items():
        dependencies = settings.student_dependencies(
            config, section, teacher_dependencies
        )
        Stage(workdir / "students" / name, dependencies, {"distill": advice})


def warn_of_other_settings(run: Run) -> None:
    """Warns where the teachers of another run were trained with other settings.

    Those of `teachers` in this configuration are not read then.
    """
    own = settings.teacher_dependencies(run.config)["teachers"]
    differ = different_settings(
        run.teacher_dependencies["teachers"], json.loads(json.dumps(own))
    )
    if not differ:
        return
    shown = [f"{key}={old!r}, not {new!r}" for key, (old, new) in differ.items()]
    more = [f"and {len(shown) - _MOST_SHOWN} more"] if len(shown) > _MOST_SHOWN else []
    multihost.warn(
        f"the teachers of {run.teachers_dir} were trained with other settings than "
        f"those of `teachers` here ({'; '.join([*shown[:_MOST_SHOWN], *more])}), which "
        "have no effect"
    )


def check_model(config: ml_collections.ConfigDict) -> None:
    """Checks that each network takes the images, before the data are read.

    The network of the students, or of a later group of teachers, is not used before the
    first ones are trained.

    Raises:
      InputError: names the setting of `model`.
    """
    (height, width, channels), factor = config.data.image_shape, config.data.downsample
    shape = (1, height // factor, width // factor, channels)
    example = jax.ShapeDtypeStruct(shape, jnp.float32)
    builders = {"model": model_builder(config)}
    if config.teachers_workdir is None:
        for name in settings.group_names(config):
            of_group = model_builder(settings.group_config(config, name))
            builders[f"teachers.groups.{name}.model"] = of_group
    for name, build_model in builders.items():
        try:
            init = functools.partial(build_model().init, train=False)
            jax.eval_shape(init, jax.random.key(0), example)
        except InputError as error:
            raise InputError(f"{name}.{error}") from error


def check_sizes(run: Run, mesh: jax.sharding.Mesh | None) -> None:
    """Checks batch sizes and numbers of members against the data and the devices.

    Args:
      run: the run.
      mesh: its devices, or None for one device.

    Raises:
      InputError: names the setting, its value and what is accepted.
    """
    config, num_members = run.config, run.num_members
    groups = {f"teachers.groups.{name}": own for name, own in run.groups.items()}
    ensembles = groups or {"teachers": run}
    for name, own in groups.items():
        what = f"{name}.num_members"
        sharding.check_divides(mesh, sharding.MEMBER, what, own.num_members)
    # By name: the settings, the model, and numbers of networks computed at once.
    sections: dict[str, tuple[Mapping[str, Any], Any, list[int]]] = {}
    if config.teachers_workdir is None:
        for name, own in ensembles.items():
            section = own.config.teachers
            num_trained = own.kind.num_trained(own.num_members, section)
            what = f"{name}.kind={section.kind!r}: number of networks trained"
            sharding.check_divides(mesh, sharding.MEMBER, what, num_trained)
            sections[name] = section, own.config.model, [num_trained]
    sizes = [own.num_members for own in ensembles.values()]
    for name, section in run.students.items():
        sections[f"students.{name}"] = section, config.model, sizes
    for name, (section, model, at_once) in sections.items():
        batch_size = section["batch_size"]
        if batch_size > run.num_train:
            raise InputError(
                f"{name}.batch_size={batch_size} is more than the {run.num_train} "
                f"training images; accepted: 1 to {run.num_train}"
            )
        num_steps = section["num_epochs"] * run.steps_per_epoch(batch_size)
        if section["accumulate_steps"] > num_steps:
            raise InputError(
                f"{name}.accumulate_steps={section['accumulate_steps']} is more than "
                f"the {num_steps} batches of its training, which would update no "
                f"parameter; accepted: 1 to {num_steps}"
            )
        sharding.check_divides(mesh, sharding.DATA, f"{name}.batch_size", batch_size)
        models.check_groups(model.batchnorm_groups, f"{name}.batch_size", batch_size)
        for size in at_once:
            ensemble.check_members_at_once(
                f"{name}.members_at_once", section["members_at_once"], size, mesh
            )
    for name, section in run.students.items():
        perturbations.check_num_members(f"students.{name}", section, num_members)


def warn_of_schedules(run: Run, students: Iterable[str] = ()) -> None:
    """Warns of stages to be trained whose learning rate does not fall before they end.

    Args:
      run: the run; its teachers are trained if they are its own and incomplete.
      students: names of the students that are trained if they are incomplete.
    """
    # By name: the directory of the stage and the settings of its optimizer.
    stages: dict[str, tuple[pathlib.Path, Mapping[str, Any]]] = {}
    if run.config.teachers_workdir is None:
        groups = {f"teachers.groups.{name}": own for name, own in run.groups.items()}
        for name, own in (groups or {"teachers": run}).items():
            stages[name] = own.teachers_dir, own.kind.training(own.config.teachers)
    for name in students:
        stages[f"students.{name}"] = (
            run.workdir / "students" / name,
            run.students[name],
        )
    for name, (path, section) in stages.items():
        if (why := optimizers.cut_off(section)) and read_record(path) is None:
            multihost.warn(f"{name}: {why}")


def warn_of_unread(run: Run, students: Iterable[str]) -> None:
    """Warns of settings without effect of students to be trained.

    Args:
      run: the run.
      students: names of the students that are trained if they are incomplete.
    """
    for name in students:
        unread = settings.unread(run.config, name)
        if unread and read_record(run.workdir / "students" / name) is None:
            shown = ", ".join(f"{key}={value!r}" for key, value in unread.items())
            readers = ("student", "perturbation", "schedule")
            which = ", ".join(f"{key}={run.students[name][key]!r}" for key in readers)
            multihost.warn(f"students.{name}: nothing reads {shown} ({which})")


def check_students(run: Run) -> None:
    """Creates every student once, so that its kind checks the settings that it reads.

    Of one that is not trained yet, the network is initialised and an image perturbed,
    both abstractly: their faults would show after the teachers are trained.

    Raises:
      InputError: names the student and the setting.
    """
    member = functools.partial(_equal_logits, len(run.class_names))
    members = ensemble.teachers_from_functions([member] * run.num_members)
    for name, section in run.students.items():
        try:
            student = students.create_student(
                section,
                run.build_model,
                num_members=run.num_members,
                training_steps=1,
            )
            if (run.workdir / "students" / name / "complete.json").exists():
                continue
            jax.eval_shape(student.init, run.key, run.example)
            perturb = perturbations.create_perturbation(section)
            jax.eval_shape(lambda x, fn=perturb: fn(run.key, x, members), run.example)
        except InputError as error:
            raise InputError(f"students.{name}.{error}") from error


def _equal_logits(num_classes: int, x: jax.Array) -> jax.Array:
    return jnp.outer(x.reshape(len(x), -1).mean(axis=-1), jnp.ones(num_classes))
