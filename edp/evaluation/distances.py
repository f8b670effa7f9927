"""Distances of perturbed inputs to the training images."""

import numpy as np

# Images compared, to bound the time: N² · D operations for each set of inputs.
_MOST_IMAGES = 500


class DistanceToData:
    """Distance of inputs to the nearest training image, in units of a typical one.

    The unit is the mean Euclidean distance from a training image to the nearest other
    one. A clean training image is at 0; at 1, inputs are as far from the nearest image
    as the images are from theirs.
    """

    def __init__(self, images: np.ndarray):
        """Computes the unit.

        Args:
          images: training images [N, ...] in [0, 1], of which the first 500 are used.
        """
        self._images = _flat(images)
        if len(self._images) > 1:
            others = _squared(self._images, self._images)
            np.fill_diagonal(others, np.inf)
            self._unit = float(_nearest(self._images, self._images, others).mean())
        else:
            self._unit = 0.0

    def mean(self, inputs: np.ndarray) -> float | None:
        """Returns the mean over inputs [N, ...], of which the first 500 are used.

        None where the unit is 0: with one image, or with copies of one.
        """
        if self._unit == 0:
            return None
        x = _flat(inputs)
        squared = _squared(x, self._images)
        return float(_nearest(x, self._images, squared).mean()) / self._unit


def _flat(images: np.ndarray) -> np.ndarray:
    """Returns the first images as rows, float32 [n, D]."""
    images = np.asarray(images[:_MOST_IMAGES], np.float32)
    return images.reshape(len(images), -1)


def _squared(x: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Returns squared distances [n, N], up to rounding."""
    centre = images.mean(axis=0)
    x, images = x - centre, images - centre
    lengths = np.square(x).sum(1)[:, None] + np.square(images).sum(1)
    distances: np.ndarray = lengths - 2 * x @ images.T
    return distances


def _nearest(x: np.ndarray, images: np.ndarray, squared: np.ndarray) -> np.ndarray:
    """Returns the exact distance [n] of each row to the nearest by `squared`."""
    distances: np.ndarray = np.linalg.norm(x - images[squared.argmin(axis=1)], axis=1)
    return distances
