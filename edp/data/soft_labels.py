"""Soft labels of images: the distribution of people's labels, as CIFAR-10H's.

CIFAR-10H (Peterson et al., ICCV 2019, arXiv 1908.07086) has the files
cifar10h-probs.npy and cifar10h-counts.npy, [10000, 10], in the order of CIFAR-10's
test batch.
"""

import os
import pathlib

import numpy as np

from edp.data.arrays import Dataset, Split
from edp.errors import InputError
from edp.runtime import multihost, storage

_TOLERANCE = 1e-3  # of the sum of a row of probabilities
# Share of images whose most frequent label is the label of the dataset, below which
# the rows are in another order: CIFAR-10H has 0.99, a shuffled file 1 / K.
_LEAST_AGREEMENT = 0.5
# The same for Cohen's kappa, the share beyond chance: of two classes, or of one large
# class, a shuffled file agrees often, with a kappa near 0.
_LEAST_KAPPA = 0.25


def read_soft_labels(path: str | os.PathLike, dataset: Dataset) -> np.ndarray:
    """Reads the soft labels of a dataset's test images.

    Args:
      path: .npy file of an array [N', K], or .npz file with one such array:
        probabilities, or counts, which are normalised with a message. The rows are in
        the order of the source's test split, of N' examples, or of `dataset.test`.
      dataset: the dataset.

    Returns:
      float64 [N, K], rows that sum to 1, in the order of `dataset.test`.

    Raises:
      InputError: if the file cannot be read, has another shape, has a row that is
        neither probabilities nor counts, or its rows are in another order.
    """
    return _read_rows(
        *("evaluation.soft_labels", "test", path, dataset.test, dataset.tested),
        dataset.num_classes,
    )


def read_training_labels(path: str | os.PathLike, dataset: Dataset) -> np.ndarray:
    """Reads soft labels of a dataset's training images, for the loss.

    Args:
      path: as in `read_soft_labels`, with the rows in the order of the source's
        training split (before validation images are held out), or of `dataset.train`.
      dataset: the dataset.

    Returns:
      float32 [N, K], rows that sum to 1, in the order of `dataset.train`.

    Raises:
      InputError: as `read_soft_labels`.
    """
    return _read_rows(
        *("data.soft_labels", "training", path, dataset.train, dataset.trained),
        dataset.num_classes,
    ).astype(np.float32)


def _read_rows(
    setting: str,
    name: str,
    path: str | os.PathLike,
    split: Split,
    marked: np.ndarray,
    num_classes: int,
) -> np.ndarray:
    """Reads the rows of a split.

    Args:
      setting: that has the path, for messages.
      name: of the split in messages.
      path: see `read_soft_labels`.
      split: N examples.
      marked: bool [N'], which examples of the source are in the split.
      num_classes: K.
    """
    path = pathlib.Path(path).expanduser()
    given = f"{setting}={str(path)!r}"
    values = _read(path, given)
    number, chosen = len(marked), np.flatnonzero(marked)
    sizes = {number: chosen, len(chosen): np.arange(len(chosen))}
    if (
        values.ndim != 2
        or values.shape[1] != num_classes
        or len(values) not in sizes
        or values.dtype.kind not in "iuf"
    ):
        raise InputError(
            f"{given} is {values.dtype} {list(values.shape)}; it must "
            f"be numbers [{number}, {num_classes}], a row for each {name} image"
        )
    values = values[sizes[len(values)]].astype(np.float64)
    totals = values.sum(axis=1)
    wrong = ~np.isfinite(values).all(axis=1) | (values < 0).any(axis=1) | (totals <= 0)
    counts = np.array_equal(values, np.rint(values)) and (totals > 1).any()
    if not counts:
        wrong |= abs(totals - 1) > _TOLERANCE
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{given}: the row of {name} image {row} sums to "
            f"{totals[row]:.4g}; rows must be probabilities that sum to 1, or counts"
        )
    if counts and multihost.is_first():
        print(f"{path}: {totals.mean():.1f} labels per image, normalised")
    labels, most_frequent = split.labels, values.argmax(axis=1)
    agreement = np.mean(most_frequent == labels)
    shares = (np.bincount(of, minlength=num_classes) for of in (most_frequent, labels))
    chance = np.prod(list(shares), axis=0).sum() / len(labels) ** 2
    kappa_is_low = agreement - chance < _LEAST_KAPPA * (1 - chance)
    if agreement < _LEAST_AGREEMENT or kappa_is_low:
        raise InputError(
            f"{given}: the most frequent label is that of the data for "
            f"{agreement:.0%} of the {name} images; the rows must be in the order of "
            f"the {name} set (TFDS shuffles its sets: use data.source='cifar'; in a "
            f"random order the labels would agree for {chance:.0%})"
        )
    return values / totals[:, None]


def _read(path: pathlib.Path, given: str) -> np.ndarray:
    if path.suffix == ".npz":
        arrays = storage.read_npz(path)
        if len(arrays) != 1:
            raise InputError(
                f"{given} has the arrays {', '.join(sorted(arrays))}; it must have one"
            )
        return next(iter(arrays.values()))
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(
            f"{given} cannot be read as an .npy of a plain array: {error}"
        ) from error
    if not isinstance(values, np.ndarray):
        raise InputError(f"{given} must be an .npy or .npz file")
    return values
