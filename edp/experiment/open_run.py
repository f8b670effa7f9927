"""A run as its workdir tells it: what it trained, without its configuration or data."""

import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from edp import data
from edp.errors import InputError
from edp.experiment import validate
from edp.experiment.create import Experiment, find_teachers, model_builder
from edp.runtime import storage


def open_experiment(directory: pathlib.Path) -> Experiment:
    """The run in a workdir, on one device.

    Its `dataset` has no images. There is the shape that networks take and the number
    of training examples; and the names of the classes, where the run is evaluated.

    Args:
      directory: the workdir; nothing is written there.

    Raises:
      InputError: if it holds no run, or one of another version of the settings.
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
    source, dependencies = find_teachers(config, directory)
    return Experiment(
        config=config,
        workdir=directory,
        dataset=_without_images(config, directory, source / "split.npz"),
        foreign={},
        train=None,
        build_model=model_builder(config),
        mesh=None,
        key=jax.random.key(config.seed),
        teachers_dir=source / "teachers",
        teacher_dependencies=dependencies,
    )


def _with_tuples(value: Any) -> Any:
    """What was JSON, its lists as the tuples that they were."""
    if isinstance(value, dict):
        return {key: _with_tuples(child) for key, child in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _without_images(
    config: ml_collections.ConfigDict, directory: pathlib.Path, split: pathlib.Path
) -> data.Dataset:
    height, width, channels = config.data.image_shape
    factor = config.data.downsample
    shape = (height // factor, width // factor, channels)

    def blank(number: int) -> data.Split:
        images = np.broadcast_to(np.uint8(0), (number, *shape))
        return data.Split(images, np.zeros(number, np.int32))

    train = blank(len(storage.read_npz(split, ["train_indices"])["train_indices"]))
    class_names = tuple(map(str, range(config.data.num_classes)))
    gallery = directory / "gallery.npz"
    if gallery.exists():
        arrays = storage.read_npz(gallery, ["class_names"])
        class_names = tuple(arrays["class_names"].tolist())
    return data.Dataset(train, blank(0), blank(0), class_names, blank(0))
