"""`data.json`: digests of the data that the networks of a workdir are trained on.

The digests identify the data wherever they are, so `data.path` may change.
"""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from edp import data
from edp.data.image_reader import Records
from edp.errors import InputError
from edp.runtime import storage

_NAME = "data.json"
# Images of a streamed split that its digest covers, spread evenly.
_MOST_FILES = 10_000


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


def check(
    workdir: pathlib.Path,
    digests: Mapping[str, str],
    settings: Mapping[str, Any],
    *,
    own: bool = True,
) -> None:
    """Checks that the data are those that a workdir was begun with.

    A workdir without a record passes, and one whose record is of the other form.

    Args:
      workdir: of the run, or of the run that trains its teachers.
      digests: from `training_digests`.
      settings: the `data` section, for the message.
      own: whether it is the workdir of the run. Teachers of another run may have been
        trained with other soft labels.

    Raises:
      InputError: names the parts that differ.
    """
    path = workdir / _NAME
    stored = storage.read_mapping(path) if path.exists() else {}
    if not stored:
        return
    differ = []
    if stored.get("form") == digests["form"]:
        pixels = digests.keys() - {"soft_labels"}
        differ = [n for n in digests if n in pixels and stored.get(n) != digests[n]]
    if own and stored.get("soft_labels") != digests.get("soft_labels"):
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
