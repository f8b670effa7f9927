"""Run: a configuration, and all that follows from it without the images."""

import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from edp import models
from edp.errors import InputError
from edp.experiment import provenance, settings, teacher_kinds
from edp.runtime import storage, xla
from edp.runtime.stage import refuse_other_settings


class Run(NamedTuple):
    """The specification of a run: no images, no devices.

    Attributes:
      config: the configuration, as given.
      workdir: the directory that everything is written to.
      students: by name, the settings of each student: `distill` with its overrides.
      build_model: creates the network; takes `num_members` and `factor_init`.
      image_shape: (H, W, C) of the network's inputs.
      num_train: number of training examples.
      class_names: K names.
      key: the root PRNG key.
      teachers_dir: the stage of the teachers; outside `workdir` where
        `teachers_workdir` names another run.
      teacher_dependencies: every setting that the teachers depend on.
    """

    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    students: Mapping[str, Mapping[str, Any]]
    build_model: Callable[..., models.Classifier]
    image_shape: tuple[int, int, int]
    num_train: int
    class_names: tuple[str, ...]
    key: jax.Array
    teachers_dir: pathlib.Path
    teacher_dependencies: dict[str, Any]

    @property
    def example(self) -> np.ndarray:
        """One input [1, H, W, C], to initialise networks with."""
        return np.zeros((1, *self.image_shape), np.float32)

    @property
    def num_members(self) -> int:
        """M, the number of teachers."""
        return self.teacher_dependencies["teachers"]["num_members"]

    @property
    def kind(self) -> teacher_kinds.Kind:
        """The kind of the teachers; with groups, each has its own."""
        return teacher_kinds.of(self.teacher_dependencies["teachers"])

    @property
    def groups(self) -> dict[str, "Run"]:
        """By name, the run whose teachers are a group's; {} without groups."""
        groups = self.teacher_dependencies["teachers"].get("groups", {})
        return {name: self._of_group(name, own) for name, own in groups.items()}

    def _of_group(self, name: str, own: Mapping[str, Any]) -> "Run":
        config, model = self.config, ml_collections.ConfigDict(own["model"])
        if config.teachers_workdir is None:  # with the settings to train from
            config = settings.group_config(config, name)
            model = config.model
        return self._replace(
            config=config,
            build_model=model_builder(config, model),
            key=jax.random.key(own["seed"]),
            teachers_dir=self.teachers_dir / "groups" / name,
            teacher_dependencies={**self.teacher_dependencies, **own},
        )

    @property
    def num_kept(self) -> int:
        """Number of networks whose variables the teachers consist of."""
        if groups := self.groups:
            return sum(group.num_kept for group in groups.values())
        section = self.teacher_dependencies["teachers"]
        return self.kind.num_kept(self.num_members, section)

    def build_teacher(self) -> Any:
        """Creates the network of a teacher, a Flax module; a dict of them by group."""
        if groups := self.groups:
            return {name: group.build_teacher() for name, group in groups.items()}
        section = self.teacher_dependencies["teachers"]
        return self.kind.network(self.build_model, section)

    def steps_per_epoch(self, batch_size: int) -> int:
        return self.num_train // batch_size

    def trains_briefly(self, section: Mapping[str, Any], params: Any) -> bool:
        """Returns `xla.runs_briefly` of the training of a stage.

        Args:
          section: the `teachers` section, or a student's settings.
          params: the parameters of all networks that it trains, or their shapes.
        """
        batch_size = section["batch_size"]
        num_steps = section["num_epochs"] * self.steps_per_epoch(batch_size)
        num_params = models.count_params(params)
        return xla.runs_briefly(num_params, self.image_shape, num_steps * batch_size)


class TeachersOfRun(NamedTuple):
    """The location of a run's teachers and the settings that they depend on.

    Attributes:
      workdir: of the run that trains them.
      dependencies: every setting that the teachers depend on.
    """

    workdir: pathlib.Path
    dependencies: dict[str, Any]


def create_run(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    teachers: TeachersOfRun,
    student_settings: Mapping[str, Mapping[str, Any]],
    *,
    num_train: int,
    class_names: Sequence[str],
) -> Run:
    """Creates the specification of a run.

    Args:
      config: a configuration that `validate.check` accepts.
      workdir: the directory of the run.
      teachers: from `find_teachers`.
      student_settings: from `settings.resolve_students`.
      num_train: number of training examples.
      class_names: K names.
    """
    height, width, channels = config.data.image_shape
    factor = config.data.downsample
    return Run(
        config=config,
        workdir=workdir,
        students=student_settings,
        build_model=model_builder(config),
        image_shape=(height // factor, width // factor, channels),
        num_train=num_train,
        class_names=tuple(class_names),
        key=jax.random.key(config.seed),
        teachers_dir=teachers.workdir / "teachers",
        teacher_dependencies=teachers.dependencies,
    )


def find_teachers(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> TeachersOfRun:
    """Finds the teachers of a run: its own, or those of `teachers_workdir`.

    Raises:
      InputError: if `teachers_workdir` has no completed teachers, or teachers of
        other data or of another model.
    """
    dependencies = settings.teacher_dependencies(config)
    if config.teachers_workdir is None:
        return TeachersOfRun(workdir, dependencies)
    source = storage.as_path(config.teachers_workdir)
    provenance.check_version(source)
    return TeachersOfRun(source, _dependencies_elsewhere(source, config, dependencies))


def model_builder(
    config: ml_collections.ConfigDict, model: ml_collections.ConfigDict | None = None
) -> Callable[..., models.Classifier]:
    """Returns the function that creates the run's network; see `Run.build_model`.

    Args:
      config: the configuration.
      model: a `model` section in place of the configuration's.
    """
    channels = config.data.image_shape[-1]
    return functools.partial(
        models.create_model,
        config.model if model is None else model,
        num_classes=config.data.num_classes,
        mean=_per_channel(config.data.mean, channels),
        std=_per_channel(config.data.std, channels),
        dtype=config.dtype,
    )


def _per_channel(values, channels: int) -> tuple[float, ...]:
    values = tuple(values)
    return values * channels if len(values) == 1 else values


def _dependencies_elsewhere(
    source: pathlib.Path, config: ml_collections.ConfigDict, wanted: dict[str, Any]
):
    """Reads the dependencies of another run's teachers; checks data and model."""
    path = source / "teachers" / "settings.json"
    needed = (path, source / "teachers" / "complete.json", source / "split.npz")
    if not all(file.exists() for file in needed):
        raise InputError(
            f"teachers_workdir={str(source)!r} holds no completed teachers; accepted: "
            "the workdir of a run whose teachers are trained"
        )
    stored = storage.read_mapping(path)
    shared = {"data", "model"}
    if isinstance(stored.get("teachers"), dict) and "groups" in stored["teachers"]:
        shared = {"data"}  # each group has its own model
    if not stored.keys() >= {"seed", "teachers", *shared}:
        raise InputError(f"{path} is damaged: it does not hold the settings of a stage")
    own = {"model": settings.plain(config.model), **wanted}
    wanted = {section: own[section] for section in shared}
    wanted = json.loads(json.dumps(wanted))
    refuse_other_settings(path, {key: stored[key] for key in shared}, wanted)
    return stored
