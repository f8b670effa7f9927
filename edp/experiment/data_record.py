"""`data.json`: digests of the data that the networks of a workdir are trained on.

The digests identify the data wherever they are, so `data.path` may change.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from edp import data
from edp.data.image_reader import Records
from edp.errors import InputError
from edp.runtime import storage

_NAME = "data.json"
# Images of a streamed split that its digest covers, spread evenly.
_MOST_FILES = 10_000


def training_digests(dataset: data.Dataset) -> dict[str, str]:
    """Returns the digests of the training and validation splits and the class names.

    `form` is "files" for streamed images, whose digests are of up to 10,000 files of
    each split, and "pixels" for others. (`split.npz` has the digest of all labels.)
    """
    form = "files" if isinstance(dataset.train.images, Records) else "pixels"
    parts = ("train", "validation")
    if form == "files":
        spread = {part: _spread(getattr(dataset, part)) for part in parts}
        dataset = dataset._replace(**spread)
    return {"form": form, **data.dataset_digest(dataset, parts)}


def _spread(split: data.Split) -> data.Split:
    """Returns at most `_MOST_FILES` examples, spread evenly."""
    return split.select(slice(None, None, -(-len(split.labels) // _MOST_FILES)))


def check(
    workdir: pathlib.Path, digests: Mapping[str, str], settings: Mapping[str, Any]
) -> None:
    """Checks that the data are those that a workdir was begun with.

    A workdir without a record passes, and one whose record is of the other form.

    Args:
      workdir: of the run, or of the run that trains its teachers.
      digests: from `training_digests`.
      settings: the `data` section, for the message.

    Raises:
      InputError: names the parts that differ.
    """
    path = workdir / _NAME
    stored = storage.read_mapping(path) if path.exists() else {}
    if stored.get("form") != digests["form"]:
        return
    differ = [name for name in digests if stored.get(name) != digests[name]]
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
