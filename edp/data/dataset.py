"""Finds a set in its source and holds out its validation examples."""

import os
from collections.abc import Mapping
from typing import Any

from edp.data import sources, splits
from edp.data.arrays import Dataset, check_source
from edp.errors import InputError

_DEFAULTS = {
    "source": None,
    "name": None,
    "data_dir": None,
    "path": None,
    "train_size": None,
    "validation_size": None,
    "test_size": None,
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
    """Finds an image classification set, splits it and, unless streamed, reads it.

    `config` is the `data` section of a configuration:

    * `source`: 'digits' (scikit-learn's 1,797 images of 8x8), 'synthetic' (made
      up), 'tfds', 'folder' or 'npz'; what each reads is told in `edp.data.sources`.
    * `name`, `data_dir`, `train_split`, `test_split`: for 'tfds', the set's name
      (with `/config` and `:version` as TFDS takes them), the TFDS data directory
      (None: the TFDS default), and the parts to read ('train' and 'test').
    * `path`: for 'folder' the root, for 'npz' the file.
    * `image_shape` (H, W, C) and `num_classes`: checked against the data.
    * `train_size`, `validation_size`, `test_size`: numbers of examples. None is
      all there is, or for training all that validation leaves; for 'digits' it
      is 400, 200 and 1,000, for 'synthetic' 200, 100 and 100. A set without
      validation examples of its own needs `validation_size`.
    * `validation`: how the validation examples are taken from training where
      the set has none of its own: 'stratified' (drawn with `seed`, each class in
      proportion) or 'last' (the last ones in the source's order).

    * `stream`: for 'tfds' and 'folder', True leaves the images on disk; labels are
      always held in memory.
    * `resize`: for streamed sets of images of any size, 'random_crop'; see
      `edp.data.image_reader`.
    * `downsample`: for sets in memory, the side of the squares of pixels that are
      averaged; height and width of `image_shape`, the set's, divide by it.

    Smaller training and validation sets are stratified draws made with `seed`. A
    smaller test set is a stratified draw which is the same whatever the seed.
    All splits keep the source's order.

    Args:
      config: the `data` section; keys left out count as None or the defaults
        above, further keys are not read.
      seed: seed of the draws, 0 or more.
      split_path: `.npz` file which keeps the chosen indices. Written on first
        use; from then on read, after checking that it was made with the same
        settings for the same data. Of a streamed set it keeps the labels too,
        which spares reading all of the set to have them.

    Returns:
      The three splits: uint8 images [N, H, W, C], C-contiguous arrays or if streamed
      `Records`, and int32 labels [N]; the class names; and the test split before
      it was downsampled.

    Raises:
      InputError: if a setting is wrong, or the data or the stored split is
        missing, unreadable or does not fit the settings.
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
    full_test = parts["test"]
    if stream:
        for split in parts.values():
            split.images[:1]  # what is wrong with all images is told before training
    else:
        factor = settings["downsample"]
        parts = {n: split.in_memory().downsample(factor) for n, split in parts.items()}
        if factor == 1:
            full_test = parts["test"]  # one array, not two
    return Dataset(**parts, class_names=source.class_names, full_test=full_test)


def _check_stream(settings: Mapping[str, Any], can_stream: bool) -> bool:
    """Returns whether images are streamed."""
    stream, resize = settings["stream"], settings["resize"]
    if stream and not can_stream:
        raise InputError(
            f"data.stream is {stream}, but the source {settings['source']!r} is read "
            "into memory; with data.stream, data.source must be 'tfds' or 'folder'"
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
