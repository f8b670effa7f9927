"""What every stage of a run starts from, made once from its configuration."""

import functools
import json
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from edp import data, ensemble, models, perturbations, students
from edp.errors import InputError
from edp.experiment import provenance, settings, teacher_kinds
from edp.runtime import multihost, sharding, storage
from edp.runtime.feed import Schedule
from edp.runtime.stage import Stage, refuse_other_settings


class Experiment(NamedTuple):
    """A configured run.

    Attributes:
      config: as given.
      workdir: where everything is written.
      dataset: labels on the host, and images there or on disk.
      foreign: by the names of `evaluation.ood_sets`, images of the shape of
        `dataset.full_test`, read when they are indexed.
      train: the training split on the device, (images uint8, labels); None if it
        is streamed.
      build_model: makes the network; takes `num_members` and `factor_init`.
      mesh: devices, or None for one.
      key: the root of all randomness.
      teachers_dir: where the teachers are; inside `workdir` unless they are
        those of another run.
      teacher_dependencies: all that they depend on.
      drawn_split: the bytes of `split.npz`, where one was drawn.
    """

    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    dataset: data.Dataset
    foreign: Mapping[str, data.Records]
    train: tuple[jax.Array, jax.Array] | None
    build_model: Callable[..., models.Classifier]
    mesh: jax.sharding.Mesh | None
    key: jax.Array
    teachers_dir: pathlib.Path
    teacher_dependencies: dict[str, Any]
    drawn_split: bytes | None = None

    @property
    def example(self) -> np.ndarray:
        """One input [1, H, W, C], to initialise networks with."""
        return np.zeros((1, *self.dataset.train.images.shape[1:]), np.float32)

    @property
    def num_members(self) -> int:
        """M of the teachers."""
        return self.teacher_dependencies["teachers"]["num_members"]

    @property
    def kind(self) -> teacher_kinds.Kind:
        """That of the teachers."""
        return teacher_kinds.of(self.teacher_dependencies["teachers"])

    def steps_per_epoch(self, batch_size: int) -> int:
        return len(self.dataset.train.labels) // batch_size


def create_experiment(
    config: ml_collections.ConfigDict, directory: pathlib.Path
) -> Experiment:
    """Reads the data, and tells what is at fault; `record` writes.

    Args:
      config: one that `settings.check` accepts.
      directory: the workdir.

    Raises:
      InputError: for a workdir, settings or data at fault; names them.
    """
    storage.check_writable(directory)
    provenance.check_version(directory)
    provenance.check_hardware(directory)
    source, dependencies = find_teachers(config, directory)
    _check_stages(config, directory, dependencies)
    mesh = sharding.create_mesh(config.mesh.member, config.mesh.data)
    num_members = dependencies["teachers"]["num_members"]
    sharding.check_divides(mesh, sharding.MEMBER, "teachers.num_members", num_members)
    build_model = model_builder(config)
    try:
        build_model()  # faults are told before the data are read
    except InputError as error:
        raise InputError(f"model.{error}") from error
    # Students must not see what the teachers were validated on, so the split is
    # that of the teachers, wherever they were trained.
    stored = source / "split.npz"
    with multihost.first_then_others(), tempfile.TemporaryDirectory() as scratch:
        drawn = pathlib.Path(scratch) / "split.npz"
        dataset = data.create_dataset(
            config.data,
            seed=dependencies["seed"],
            split_path=stored if stored.exists() else drawn,
        )
        foreign = {
            name: data.open_foreign(
                name,
                size=config.evaluation.ood_size,
                image_shape=tuple(config.data.image_shape),
                data_dir=config.data.data_dir,
            )
            for name in config.evaluation.ood_sets
        }
        _check_sizes(config, mesh, len(dataset.train.labels), num_members)
        _check_students(config, build_model, num_members)
        split = drawn.read_bytes() if drawn.exists() else None
        if jax.process_count() > 1:  # the others need not draw it from all the data
            _write_split(directory, split)
    return Experiment(
        config=config,
        workdir=directory,
        dataset=dataset,
        foreign=foreign,
        train=None if config.data.stream else sharding.put(tuple(dataset.train), mesh),
        build_model=build_model,
        mesh=mesh,
        key=jax.random.key(config.seed),
        teachers_dir=source / "teachers",
        teacher_dependencies=dependencies,
        drawn_split=split,
    )


def find_teachers(
    config: ml_collections.ConfigDict, directory: pathlib.Path
) -> tuple[pathlib.Path, dict[str, Any]]:
    """The workdir in which the teachers are, and all that they depend on.

    Raises:
      InputError: if they are those of another run and it has no completed ones, or
        of other data or another model.
    """
    dependencies = settings.teacher_dependencies(config)
    if config.teachers_workdir is None:
        return directory, dependencies
    source = storage.as_path(config.teachers_workdir)
    provenance.check_version(source)
    return source, _dependencies_elsewhere(source, dependencies)


def model_builder(
    config: ml_collections.ConfigDict,
) -> Callable[..., models.Classifier]:
    """What makes the run's network; see `Experiment.build_model`."""
    channels = config.data.image_shape[-1]
    return functools.partial(
        models.create_model,
        config.model,
        num_classes=config.data.num_classes,
        mean=_per_channel(config.data.mean, channels),
        std=_per_channel(config.data.std, channels),
        dtype=config.dtype,
    )


def _check_stages(
    config: ml_collections.ConfigDict,
    directory: pathlib.Path,
    teacher_dependencies: dict[str, Any],
) -> None:
    """Refuses other settings than a stage was begun with, before any work is done."""
    if config.teachers_workdir is None:
        Stage(directory / "teachers", teacher_dependencies)
    for name in config.students:
        dependencies = settings.student_dependencies(config, name, teacher_dependencies)
        Stage(directory / "students" / name, dependencies)


def _check_sizes(
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh | None,
    num_train: int,
    num_members: int,
) -> None:
    sections, at_once = {}, {}
    if config.teachers_workdir is None:
        num_trained = teacher_kinds.of(config.teachers).num_trained(num_members)
        name = f"teachers.kind={config.teachers.kind!r}: number of networks trained"
        sharding.check_divides(mesh, sharding.MEMBER, name, num_trained)
        sections["teachers"], at_once["teachers"] = config.teachers, num_trained
    for name in config.students:
        sections[f"students.{name}"] = settings.student_settings(config, name)
    for name, section in sections.items():
        batch_size = section["batch_size"]
        if batch_size > num_train:
            raise InputError(
                f"{name}.batch_size={batch_size} is more than the {num_train} "
                f"training images; accepted: 1 to {num_train}"
            )
        sharding.check_divides(mesh, sharding.DATA, f"{name}.batch_size", batch_size)
        models.check_groups(
            config.model.batchnorm_groups, f"{name}.batch_size", batch_size
        )
        ensemble.check_members_at_once(
            f"{name}.members_at_once",
            section["members_at_once"],
            at_once.get(name, num_members),
            mesh,
        )
        perturbations.check_random_members(
            f"{name}.random_members", section.get("random_members"), num_members
        )


def _check_students(
    config: ml_collections.ConfigDict, build_model: Callable, num_members: int
) -> None:
    """Has every kind of student check the settings that it reads."""
    for name in config.students:
        section = settings.student_settings(config, name)
        try:
            students.create_student(
                section, build_model, num_members=num_members, training_steps=1
            )
        except InputError as error:
            raise InputError(f"students.{name}.{error}") from error


def record_run(experiment: Experiment) -> None:
    """Writes what the run is: `config.json`, and where missing the other two.

    For who is about to write what comes of it, and holds the lock of that: one who is
    refused leaves the files of the run as they are.

    Raises:
      InputError: if they cannot be written.
    """
    directory = experiment.workdir
    text = experiment.config.to_json(indent=2) + "\n"
    try:
        _write_split(directory, experiment.drawn_split)
        storage.write_text(directory / "config.json", text)
        # Of the process that began the run: results may be made anywhere.
        if not (directory / "run.json").exists():
            storage.write_json(directory / "run.json", provenance.run_facts())
    except OSError as error:
        raise InputError(
            f"workdir={str(directory)!r} cannot be used: {error}"
        ) from error


def _write_split(directory: pathlib.Path, split: bytes | None) -> None:
    path = directory / "split.npz"
    if split is not None and not path.exists():
        storage.write_bytes(path, split)


def create_schedule(
    experiment: Experiment, section: Mapping[str, Any], images_per_step: int
) -> Schedule:
    """How long to train, for the `teachers` section or a student's settings."""
    return Schedule(
        num_epochs=section["num_epochs"],
        steps_per_epoch=experiment.steps_per_epoch(section["batch_size"]),
        images_per_step=images_per_step,
        checkpoint_minutes=experiment.config.checkpoint_minutes,
        checkpoint_steps=experiment.config.checkpoint_steps,
        steps_per_dispatch=experiment.config.steps_per_dispatch,
    )


def _per_channel(values, channels: int) -> tuple[float, ...]:
    values = tuple(values)
    return values * channels if len(values) == 1 else values


def _dependencies_elsewhere(source: pathlib.Path, wanted: dict[str, Any]):
    """What the teachers of another run depend on, checked against this config."""
    path = source / "teachers" / "settings.json"
    needed = (path, source / "teachers" / "complete.json", source / "split.npz")
    if not all(file.exists() for file in needed):
        raise InputError(
            f"teachers_workdir={str(source)!r} holds no completed teachers; accepted: "
            "the workdir of a run whose teachers are trained"
        )
    stored = storage.read_mapping(path)
    shared = ("data", "model")
    if not stored.keys() >= {"seed", "teachers", *shared}:
        raise InputError(f"{path} is damaged: it is not what a stage depends on")
    wanted = {section: wanted[section] for section in shared}
    wanted = json.loads(json.dumps(wanted))
    refuse_other_settings(path, {key: stored[key] for key in shared}, wanted)
    return stored
