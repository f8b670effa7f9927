"""Opens a run from its workdir: no configuration file and no data are read."""

import pathlib
from typing import Any

import ml_collections

from edp.errors import InputError
from edp.experiment import settings, validate
from edp.experiment.run import Run, create_run, find_teachers
from edp.runtime import storage


def open_run(directory: pathlib.Path) -> Run:
    """Opens the run in a workdir, without its data; writes nothing.

    Args:
      directory: the workdir.

    Raises:
      InputError: if it holds no run, or one whose settings are of another version.
    """
    path = directory / "config.json"
    if not path.exists():
        raise InputError(f"there is no {path}; accepted: the workdir of a run")
    config = ml_collections.ConfigDict(_with_tuples(storage.read_json(path)))
    try:
        validate.check(config)
    except InputError as error:
        raise InputError(
            f"{path} is of another version of edp ({error}); run launch.evaluate with "
            "the run's --config and --workdir to bring it up to date"
        ) from error
    teachers = find_teachers(config, directory)
    split = storage.read_npz(teachers.workdir / "split.npz", ["train_indices"])
    return create_run(
        config,
        directory,
        teachers,
        settings.resolve_students(config),
        num_train=len(split["train_indices"]),
        class_names=_class_names(config, directory),
    )


def _with_tuples(value: Any) -> Any:
    """Returns a JSON value with its lists as the tuples that they were."""
    if isinstance(value, dict):
        return {key: _with_tuples(child) for key, child in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _class_names(
    config: ml_collections.ConfigDict, directory: pathlib.Path
) -> tuple[str, ...]:
    """Reads the class names of an evaluated run; of another, returns 0 to K - 1."""
    gallery = directory / "gallery.npz"
    if gallery.exists():
        arrays = storage.read_npz(gallery, ["class_names"])
        return tuple(arrays["class_names"].tolist())
    return tuple(map(str, range(config.data.num_classes)))
