"""Batched prediction of member probabilities."""

import collections
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from edp.errors import InputError
from edp.runtime import sharding

# Batches dispatched ahead of the one being copied back: enough that the device never
# waits for the host, few enough to bound the images on the device.
_BATCHES_AHEAD = 8


class Images(Protocol):
    """An array [N, H, W, C], or an object that reads slices of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: slice, /) -> np.ndarray: ...


def predict_in_batches(
    predict: Callable[[Any], jax.Array], images: Images, batch_size: int
) -> np.ndarray:
    """Applies `predict` to all images, in batches of one size.

    Pads the last batch with copies of its last image, so that a jitted `predict`
    compiles once. Dispatches batches ahead of the results, so that work on the host
    and on the device overlaps.

    Args:
      predict: jitted function from images [batch_size, H, W, C] to member
        probabilities [S, batch_size, K].
      images: uint8 or float [N, H, W, C]; sliced a batch at a time, which may read
        from disk.
      batch_size: examples per call, also if N is smaller.

    Returns:
      Member probabilities, float32 [S, N, K].

    Raises:
      InputError: if there are no images, the batch size is below 1, or `predict` does
        not return [S, batch_size, K].
    """
    num_images = len(images)
    if num_images == 0:
        raise InputError("images must hold at least one image, got none")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    probs = None
    pending: collections.deque[tuple[int, jax.Array]] = collections.deque()
    starts = range(0, num_images, batch_size)
    for start in starts:
        batch = images[start : start + batch_size]
        if missing := batch_size - len(batch):
            batch = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        outputs = predict(batch)
        if outputs.ndim != 3 or outputs.shape[1] != batch_size:
            raise InputError(
                f"predict must return [S, {batch_size}, K], got {outputs.shape}"
            )
        if probs is None:
            num_members, _, num_classes = outputs.shape
            probs = np.empty((num_members, num_images, num_classes), np.float32)
        jax.copy_to_host_async(outputs)
        pending.append((start, outputs))
        is_last = start == starts[-1]
        while len(pending) > (0 if is_last else _BATCHES_AHEAD):
            done, outputs = pending.popleft()
            kept = min(batch_size, num_images - done)
            probs[:, done : done + kept] = sharding.fetch(outputs)[:, :kept]
    assert probs is not None  # there is a batch
    return probs
