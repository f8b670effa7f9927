"""Where the teachers disagree: on training, test and perturbed inputs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from edp import data, metrics, sharding
from edp.ensemble import Teachers
from edp.perturbations import Perturb
from edp.predictions import predict_in_batches


def diversity(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The members' diversity and mean error, from probabilities [M, N, K]."""
    wrong = probs.argmax(-1) != labels
    return {
        "pairwise_kl": float(metrics.pairwise_kl(probs).mean()),
        "disagreement_rate": float(metrics.disagreement_rate(probs).mean()),
        "mutual_information": float(metrics.mutual_information(probs).mean()),
        "error": float(wrong.mean()),
    }


def perturb_in_batches(
    perturb: Perturb,
    make_teachers: Callable[[Any], Teachers],
    variables: Any,
    images: np.ndarray,
    key: jax.Array,
    batch_size: int,
) -> np.ndarray:
    """Perturbs uint8 `images` [N, H, W, C] as distillation does; float32 in [0, 1]."""
    batch_size = min(batch_size, len(images))

    @jax.jit
    def step(variables, key, x):
        return perturb(key, data.to_float(x), make_teachers(variables))

    moved = []
    for start in range(0, len(images), batch_size):
        # The last batch starts early enough to be full: one shape, one program.
        first = min(start, len(images) - batch_size)
        x = step(variables, jax.random.fold_in(key, start), images[first:][:batch_size])
        moved.append(sharding.fetch(x)[start - first :])
    return np.concatenate(moved)


def compare_inputs(
    make_teachers: Callable[[Any], Teachers],
    variables: Any,
    clean: dict[str, data.Split],
    perturbs: dict[str, Perturb],
    key: jax.Array,
    *,
    batch_size: int,
    gallery_size: int,
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """The teachers' diversity on clean and on perturbed inputs.

    Args:
      make_teachers: variables -> `Teachers`.
      variables: stacked.
      clean: name -> inputs; those of 'train' are the ones that are perturbed.
      perturbs: name -> perturbation.
      key: PRNG key.
      batch_size: inputs at a time.
      gallery_size: how many of the training inputs to show.

    Returns:
      name -> `diversity`, and the arrays of the report's gallery: `names` [P],
      `images` [P, n, H, W, C] in [0, 1], `probs` [P, M, n, K] and `labels` [n].
    """

    @jax.jit
    def probs_fn(variables, x):
        return jax.nn.softmax(make_teachers(variables).all_logits(x), axis=-1)

    train = clean["train"]
    views = {name: (np.float32(s.images) / 255, s.labels) for name, s in clean.items()}
    for name, perturb in perturbs.items():
        moved = perturb_in_batches(
            perturb, make_teachers, variables, train.images, key, batch_size
        )
        views[name] = (moved, train.labels)
    result, probs = {}, {}
    for name, (images, labels) in views.items():
        probs[name] = predict_in_batches(
            functools.partial(probs_fn, variables), images, batch_size
        )
        result[name] = diversity(probs[name], labels)
    chosen = _one_of_each_class(train.labels, gallery_size)
    shown = ["train", *perturbs]
    gallery = {
        "names": np.array(["clean", *perturbs]),
        "images": np.stack([views[name][0][chosen] for name in shown]),
        "probs": np.stack([probs[name][:, chosen] for name in shown]),
        "labels": train.labels[chosen],
    }
    return result, gallery


def _one_of_each_class(labels: np.ndarray, size: int) -> np.ndarray:
    """Indices of up to `size` examples, of as many classes as possible."""
    rank = np.zeros(len(labels), int)
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        rank[of_label] = np.arange(len(of_label))
    return np.argsort(rank, kind="stable")[:size]
