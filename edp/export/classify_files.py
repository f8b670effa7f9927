"""Classification of image files with an exported artifact."""

import csv
import io
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from edp import data
from edp.data import image_files, image_preparation, image_reader
from edp.errors import InputError
from edp.export import loader
from edp.runtime import batched, storage, xla

FIELDS = ("file", "class", "probability", "entropy")

# Keys of metadata.json that are required.
_REQUIRED = ("classes", "input", "preparation")
_RESIZES = {"whole": image_preparation.WHOLE, "central_crop": "random_crop"}


def find_images(paths: Sequence[str | os.PathLike[str]]) -> list[pathlib.Path]:
    """Finds images: the files given, and all images below the folders given, sorted.

    Raises:
      InputError: if there are none.
    """
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            try:
                below = image_files.images_below(path)
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error}") from error
            found += below.paths
            image_files.warn_left_out(path, below.left_out)
        else:
            found.append(path)
    if not found:
        raise InputError(
            f"there are no images in {', '.join(map(str, paths)) or 'nothing'}; "
            "accepted: image files, or folders of "
            f"{', '.join(image_preparation.SUFFIXES)}"
        )
    return found


def predict_files(
    artifact: pathlib.Path,
    paths: Sequence[pathlib.Path],
    out: pathlib.Path,
    *,
    batch_size: int,
    skip: Callable[[str], None],
    coverage: float | None = None,
) -> int:
    """Writes a CSV with the predicted class of each image.

    Columns: `file`, the most probable `class`, its calibrated `probability`, and the
    `entropy` of the probabilities in nats; with `coverage` also `set`, the classes of
    the prediction set from the most probable on, separated by `|`. Images are prepared
    as in the run's evaluation; if the run's images were not resized, the whole image is
    resized to the network's input without keeping the aspect ratio.

    Args:
      artifact: directory that `launch.export` wrote.
      paths: image files.
      out: the CSV; written after the last prediction.
      batch_size: largest number of images per forward pass.
      skip: receives a message for each file that cannot be read; such a file has no
        row.
      coverage: probability with which a set is to contain the class; None: no sets.

    Returns:
      The number of classified images; if it is 0, no file is written.

    Raises:
      InputError: if the artifact cannot be loaded or has no threshold for the
        coverage, or `out` exists.
    """
    check_out(out)
    call, metadata = _load(artifact)
    probs_fn = jax.jit(
        lambda images: call(images)["probs"][None],
        compiler_options=xla.compiler_options(),
    )
    if coverage is not None:
        _check_coverage(metadata, coverage)
    images = _Images(paths, metadata)
    fixed = metadata["input"]["shape"][0]
    size = fixed if isinstance(fixed, int) else min(batch_size, len(paths))
    # disable=None: bar only on a terminal.
    with tqdm.tqdm(total=len(paths), unit="image", disable=None) as bar:

        def predict(batch):
            bar.update(min(size, len(paths) - bar.n))
            return probs_fn(batch)

        (probs,) = batched.predict_in_batches(predict, images, size)
    for index in sorted(images.faults):
        skip(images.faults[index])
    kept = [i for i in range(len(paths)) if i not in images.faults]
    if kept:
        classes = metadata["classes"]
        rows: list[tuple[Any, ...]] = [
            (paths[i], *_describe(probs[i], classes)) for i in kept
        ]
        fields: tuple[str, ...] = FIELDS
        if coverage is not None:
            sets = loader.prediction_sets(probs[kept], metadata, coverage)
            own = zip(rows, probs[kept], sets, strict=True)
            rows = [(*row, _list_classes(p, one, classes)) for row, p, one in own]
            fields = (*FIELDS, "set")
        text = io.StringIO()
        csv.writer(text).writerows([fields, *rows])
        storage.write_text(out, text.getvalue())
    return len(kept)


def check_out(out: pathlib.Path) -> None:
    """Checks that a CSV can be written.

    Raises:
      InputError: if it exists, or its directory is not writable.
    """
    if os.path.lexists(out):
        raise InputError(f"out={str(out)!r} exists already; accepted: a new file")
    storage.check_writable(out.parent, "out")


def _load(artifact: pathlib.Path) -> tuple[Callable[..., Any], dict[str, Any]]:
    try:
        call, metadata = loader.load(artifact)
        missing = [key for key in _REQUIRED if key not in metadata]
        if missing:
            raise InputError(f"metadata.json does not have {', '.join(missing)}")
        return call, metadata
    except Exception as error:  # a damaged program can fail in any layer
        raise InputError(
            f"artifact={str(artifact)!r} cannot be loaded: {error}; accepted: a "
            "directory that launch.export made"
        ) from error


def _describe(probs: np.ndarray, classes: Sequence[str]) -> tuple[str, str, str]:
    p = probs.astype(np.float64)
    entropy = -(p * np.log(np.maximum(p, np.finfo(p.dtype).tiny))).sum()
    top = int(p.argmax())
    return classes[top], f"{p[top]:.6f}", f"{entropy:.6f}"


def _check_coverage(metadata: dict[str, Any], coverage: float) -> None:
    try:
        loader.set_threshold(metadata, coverage)
    except ValueError as error:
        raise InputError(
            f"{error}; a run needs data.calibration_size, and the coverage in "
            "evaluation.set_coverages"
        ) from error


def _list_classes(probs: np.ndarray, chosen: np.ndarray, classes: Sequence[str]) -> str:
    """Returns the names of the classes in a set, the most probable first."""
    order = np.argsort(-probs, kind="stable")
    return "|".join(classes[k] for k in order if chosen[k])


class _Images:
    """Image files indexed like an array; unreadable ones are black.

    Attributes:
      faults: index -> error message of an unreadable file.
    """

    def __init__(self, paths: Sequence[pathlib.Path], metadata: dict[str, Any]):
        height, width, channels = metadata["input"]["shape"][1:]
        preparation = metadata["preparation"]
        self._factor = preparation["downsample"]
        self._records = image_reader.Records(
            image_files.Files(list(paths)),
            np.arange(len(paths)),
            (height * self._factor, width * self._factor, channels),
            _RESIZES[preparation["resize"]],
        )
        self.faults: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, indices: slice) -> np.ndarray:
        try:
            images = self._records[indices]
        except InputError:
            each = range(*indices.indices(len(self)))
            images = np.stack([self._read(index) for index in each])
        return data.downsample(images, self._factor)

    def _read(self, index: int) -> np.ndarray:
        try:
            return self._records[index : index + 1][0]
        except InputError as error:
            self.faults[index] = str(error)
            return np.zeros(self._records.image_shape, np.uint8)
