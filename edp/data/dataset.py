"""Loading of a configured dataset: source, checks, splits."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from edp.data import sources, splits
from edp.data.arrays import Dataset, check_source
from edp.data.decoding_processes import decoding
from edp.data.image_reader import Records
from edp.errors import InputError

_DEFAULTS = {
    "source": None,
    "name": None,
    "data_dir": None,
    "path": None,
    "train_size": None,
    "validation_size": None,
    "test_size": None,
    "calibration_size": None,
    "validation": "stratified",
    "image_shape": None,
    "num_classes": None,
    "train_split": "train",
    "test_split": "test",
    "stream": False,
    "resize": "none",
    "downsample": 1,
}


def create_dataset(
    config: Mapping[str, Any],
    *,
    seed: int,
    split_path: str | os.PathLike | None = None,
) -> Dataset:
    """Loads an image classification dataset and splits it.

    `config` is the `data` section of a configuration:

    * `source`: one of `edp.data.SOURCES`; `edp.data.sources` documents each.
    * `name`, `data_dir`, `train_split`, `test_split`: for 'tfds', the dataset's name
      (with `/config` and `:version`, as in TFDS), the TFDS data directory (None:
      the TFDS default), and the splits to read ('train' and 'test').
    * `path`: the file or root directory, for every source that reads files.
    * `image_shape` (H, W, C) and `num_classes`: checked against the data.
    * `train_size`, `validation_size`, `test_size`: numbers of examples. None means
      all; for training, all that validation leaves; for 'digits' 400, 200 and
      1,000, for 'synthetic' 200, 100 and 100. A dataset without a validation
      split needs `validation_size`.
    * `calibration_size`: so many of the validation examples, a stratified draw with
      `seed`, calibrate prediction sets instead and nothing else; None: none.
    * `validation`: how validation examples are held out of training if the
      dataset has no validation split: 'stratified' (drawn with `seed`, each class
      in proportion) or 'last' (the last examples in the source's order).
    * `stream`: True leaves the images on disk, for sources of encoded images
      (`Entry.streams`); labels are always in memory.
    * `resize`: for streamed images of any size, 'random_crop'; see
      `edp.data.image_reader`.
    * `downsample`: for datasets in memory, the side of the squares of pixels that
      are averaged; it must divide the height and width of `image_shape`.

    Smaller training and validation splits are stratified draws with `seed`. A
    smaller test split is a stratified draw that does not depend on the seed.
    All splits keep the source's order.

    Args:
      config: the `data` section; missing keys take the defaults above; other keys are
        ignored.
      seed: of the draws, 0 or more.
      split_path: `.npz` file that stores the chosen indices. Written on first use;
        afterwards read, and checked against the settings and the data. For a
        streamed dataset it also stores the labels, so that they need not be read
        again.

    Returns:
      The three splits: uint8 images [N, H, W, C], C-contiguous arrays or, if
      streamed, `Records`, and int32 labels [N]; the class names; and the other
      attributes of `Dataset`.

    Raises:
      InputError: if a setting is invalid, or the data or the stored split is missing,
        unreadable or does not match the settings.
    """
    settings = {key: config.get(key, default) for key, default in _DEFAULTS.items()}
    settings["image_shape"] = _image_shape(settings["image_shape"])
    num_classes = splits.check_size("num_classes", settings["num_classes"])
    entry = sources.get_source(settings["source"])
    for key, size in entry.default_sizes.items():
        if settings[key] is None:
            settings[key] = size

    stream = _check_stream(settings, entry.streams)
    _check_downsample(settings)
    settings["known_labels"] = {}
    if stream and split_path is not None:
        settings["known_labels"] = splits.stored_labels(split_path)
    source = entry.load(**{key: settings[key] for key in entry.reads})
    source = check_source(
        source, image_shape=settings["image_shape"], num_classes=num_classes
    )
    plan = splits.plan_split(
        source.train.labels,
        None if source.validation is None else source.validation.labels,
        train_size=settings["train_size"],
        validation_size=settings["validation_size"],
        validation=settings["validation"],
        seed=seed,
        calibration_size=settings["calibration_size"],
    )
    if split_path is None:
        chosen = splits.draw_indices(plan)
    else:
        labels = {"train": source.train.labels, "test": source.test.labels}
        chosen = splits.stored_indices(plan, split_path, labels if stream else None)
    tested = splits.fixed_subset(source.test.labels, "test_size", settings["test_size"])
    held_out = source.train if source.validation is None else source.validation
    parts = {
        "train": source.train.select(chosen.train),
        "validation": held_out.select(chosen.validation),
        "test": source.test.select(tested),
    }
    if len(chosen.calibration):
        parts["calibration"] = held_out.select(chosen.calibration)
    full_test = parts["test"]
    if stream:
        for split in parts.values():
            split.images[:1]  # a fault of every image is raised before training
    else:
        factor = settings["downsample"]
        encoded = [p.images for p in parts.values() if isinstance(p.images, Records)]
        with decoding(sum(map(len, encoded))) as processes:  # the same for all splits
            parts = {
                name: split.in_memory(processes).downsample(factor)
                for name, split in parts.items()
            }
        if factor == 1:
            full_test = parts["test"]  # one array, not two
    splits.warn_missing_classes(
        source.train.labels,
        {name: parts[name].labels for name in ("train", "validation")},
    )
    return Dataset(
        **parts,
        class_names=source.class_names,
        full_test=full_test,
        tested=np.isin(np.arange(len(source.test.labels)), tested),
        trained=np.isin(np.arange(len(source.train.labels)), chosen.train),
        class_directories=source.class_directories,
    )


def _check_stream(settings: Mapping[str, Any], can_stream: bool) -> bool:
    """Returns `data.stream` after checking it against the source and `resize`."""
    stream, resize = settings["stream"], settings["resize"]
    streamed = ", ".join(repr(n) for n, e in sources.SOURCES.items() if e.streams)
    if stream and not can_stream:
        raise InputError(
            f"data.stream is {stream}, but the source {settings['source']!r} is read "
            f"into memory; with data.stream, data.source must be one of {streamed}"
        )
    if resize != "none" and not stream:
        raise InputError(
            f"data.resize is {resize!r}, but data.stream is {stream}; images are "
            "resized only as they are streamed"
        )
    return stream


def _check_downsample(settings: Mapping[str, Any]) -> None:
    factor, shape = settings["downsample"], settings["image_shape"]
    splits.check_size("downsample", factor)
    if factor > 1 and settings["stream"]:
        raise InputError(
            f"data.downsample is {factor}, but data.stream is True; only images in "
            "memory are averaged"
        )
    if shape[0] % factor or shape[1] % factor:
        raise InputError(
            f"data.downsample is {factor}; it must divide height and width of "
            f"data.image_shape {shape}"
        )


def _image_shape(value: Any) -> tuple[int, int, int]:
    """Returns the setting `image_shape` as three positive ints."""
    try:
        shape = tuple(splits.check_size("image_shape", size) for size in value)
    except (TypeError, InputError):
        shape = ()
    if len(shape) != 3:
        raise InputError(
            f"data.image_shape is {value!r}; it must be (height, width, channels), "
            "three positive integers"
        )
    return shape
