"""Scores of each corrupted image, and their files."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edp.errors import InputError
from edp.runtime import storage

_ID = "id"


class ImageScores(NamedTuple):
    """Scores of a predictor on each of N images.

    Attributes:
      nll: calibrated NLL, in nats, [N].
      correct: 1.0 where the most probable class is the label, else 0.0, [N]; of
        several corruptions, the mean over them, as `nll` is.
    """

    nll: np.ndarray
    correct: np.ndarray


def mean(scores: Sequence[ImageScores]) -> ImageScores:
    """Returns the mean over the scores of the same images."""
    return ImageScores(*(np.mean(of, axis=0) for of in zip(*scores, strict=True)))


def path_of(workdir: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of the file of a student, in a workdir."""
    return workdir / "corruptions" / f"{name}.npz"


def save(
    path: pathlib.Path, training_id: str, by_set: Mapping[str, ImageScores]
) -> None:
    """Writes the scores of a student, atomically.

    Args:
      path: of the .npz file.
      training_id: the `id` of the student's training.
      by_set: by set of corrupted images, such as 'mean' or 'CIFAR-10-C/mean'.
    """
    arrays = {
        f"{name} {field}": np.asarray(value, np.float32)
        for name, scores in by_set.items()
        for field, value in scores._asdict().items()
    }
    storage.write_npz(path, {_ID: np.asarray(training_id), **arrays}, compress=True)


def load(path: pathlib.Path, training_id: str) -> dict[str, ImageScores]:
    """Reads the file of `save`; {} if it is of another training of the student.

    Raises:
      InputError: if the file is missing, damaged, or does not hold such scores.
    """
    arrays = storage.read_npz(path)
    if str(arrays.pop(_ID, "")) != training_id:
        return {}
    names = dict.fromkeys(key.rpartition(" ")[0] for key in arrays)
    try:
        return {
            name: ImageScores(
                *(arrays[f"{name} {field}"] for field in ImageScores._fields)
            )
            for name in names
        }
    except KeyError as error:
        raise InputError(
            f"{path} lacks {error}; remove it and corruptions.json, and evaluate"
        ) from error


def check_rows(
    path: pathlib.Path,
    by_set: Mapping[str, ImageScores],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Checks that the scores of a file average to the rows of the same evaluation.

    An evaluation with other settings that ended between the file and
    `corruptions.json` leaves rows of other images.

    Args:
      path: of the file, for the message.
      by_set: from `load`.
      rows: of the student, in `corruptions.json`.

    Raises:
      InputError: if the mean over the images is not that of the rows of a set.
    """
    for name, scores in by_set.items():
        own = [row for row in rows if row["corruption"] == name]
        for field, key in (("nll", "cnll"), ("correct", "accuracy")):
            found = float(getattr(scores, field).mean(dtype=np.float64))
            expected = float(np.mean([row[key] for row in own])) if own else np.nan
            if not np.isclose(found, expected, rtol=1e-4):
                raise InputError(
                    f"{path} has {key} {found:.5g} of {name!r}, but corruptions.json "
                    f"{expected:.5g}: an evaluation was interrupted; remove "
                    "corruptions.json, and evaluate"
                )
