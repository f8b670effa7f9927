"""`data.json`: digests of the data that the networks of a workdir are trained on.

The digests identify the data wherever they are, so `data.path` may change.
"""

import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edp import data
from edp.data.image_reader import Records
from edp.errors import InputError
from edp.runtime import storage

_NAME = "data.json"
# Images of a streamed split that its digest covers, spread evenly.
_MOST_FILES = 10_000
_TRAINED_ON = ("train", "validation", "calibration")


def training_digests(
    dataset: data.Dataset, soft_labels: np.ndarray | None = None
) -> dict[str, str]:
    """Returns the digests of the training and validation splits and the class names.

    Also that of the training images' soft labels, if they are given.

    `form` is "files" for streamed images, whose digests are of up to 10,000 files of
    each split, and "pixels" for others. (`split.npz` has the digest of all labels.)
    """
    form = "files" if isinstance(dataset.train.images, Records) else "pixels"
    parts = ("train", "validation")
    if form == "files":
        spread = {part: _spread(getattr(dataset, part)) for part in parts}
        dataset = dataset._replace(**spread)
    digests = {"form": form, **data.dataset_digest(dataset, parts)}
    if soft_labels is not None:
        digests["soft_labels"] = hashlib.sha256(soft_labels.tobytes()).hexdigest()
    return digests


def _spread(split: data.Split) -> data.Split:
    """Returns at most `_MOST_FILES` examples, spread evenly."""
    return split.select(slice(None, None, -(-len(split.labels) // _MOST_FILES)))


def other_digests(
    dataset: data.Dataset, settings: Mapping[str, Any], **options: Any
) -> dict[str, str]:
    """Returns `training_digests` as with the opposite of `data.stream`.

    Decodes all images of a streamed dataset; finds the files of one in memory again.

    Args:
      dataset: from `data.create_dataset`.
      settings: the `data` section that it was created from.
      **options: the other arguments that it was created with.

    Raises:
      InputError: as `data.create_dataset`.
    """
    if not isinstance(dataset.train.images, Records):
        streamed = {**settings, "stream": True}
        return training_digests(data.create_dataset(streamed, **options))
    splits = {name: getattr(dataset, name) for name in _TRAINED_ON}
    decoded = {name: split and split.in_memory() for name, split in splits.items()}
    return training_digests(dataset._replace(**decoded))


def check(
    workdir: pathlib.Path,
    digests: Mapping[str, str],
    settings: Mapping[str, Any],
    other: Callable[[], Mapping[str, str]],
    *,
    own: bool = True,
) -> None:
    """Checks that the data are those that a workdir was begun with.

    A workdir without a record passes.

    Args:
      workdir: of the run, or of the run that trains its teachers.
      digests: from `training_digests`.
      settings: the `data` section, for the message.
      other: returns `other_digests`; called where the record is of that form.
      own: whether it is the workdir of the run. Teachers of another run may have been
        trained with other soft labels.

    Raises:
      InputError: names the parts that differ.
    """
    path = workdir / _NAME
    stored = storage.read_mapping(path) if path.exists() else {}
    if not stored:
        return
    of_data, differ = dict(digests), []
    labels = of_data.pop("soft_labels", None)
    if "form" in stored:
        if stored["form"] != digests["form"]:
            of_data = dict(other())
        differ = [name for name in of_data if stored.get(name) != of_data[name]]
    if own and stored.get("soft_labels") != labels:
        differ.append("soft_labels")
    if differ:
        place = settings.get("path") or settings.get("name") or settings["source"]
        raise InputError(
            f"the data at {place} are not those that {workdir} was begun with "
            f"({', '.join(differ)} differ from {path}); accepted: the same data at any "
            "place, or another workdir"
        )


def write(workdir: pathlib.Path, digests: Mapping[str, str]) -> None:
    """Writes the record of a workdir that has none."""
    if not (workdir / _NAME).exists():
        storage.write_json(workdir / _NAME, dict(digests))
