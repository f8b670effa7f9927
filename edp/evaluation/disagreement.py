"""Disagreement of the teachers, and the match of a student to them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from edp import data, losses, metrics
from edp.ensemble import Teachers
from edp.perturbations import Perturb
from edp.runtime import sharding, xla

# (key, images uint8 [N, H, W, C], step size) -> float32 [N, H, W, C] in [0, 1].
Perturber = Callable[[jax.Array, np.ndarray, float], np.ndarray]


class View(NamedTuple):
    """Inputs with the teachers' predictions on them.

    Attributes:
      images: float32 [N, H, W, C] in [0, 1].
      labels: integers [N].
      probs: the members' probabilities [M, N, K].
    """

    images: np.ndarray
    labels: np.ndarray
    probs: np.ndarray


def diversity(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Computes the members' diversity and mean error from probabilities [M, N, K]."""
    wrong = probs.argmax(-1) != labels
    return {
        "pairwise_kl": float(metrics.pairwise_kl(probs).mean()),
        "disagreement_rate": float(metrics.disagreement_rate(probs).mean()),
        "mutual_information": float(metrics.mutual_information(probs).mean()),
        "variance": float(metrics.variance(probs).mean()),
        "error": float(wrong.mean()),
    }


def match(
    teacher_probs: np.ndarray, student_probs: np.ndarray, temperature: float
) -> dict[str, float]:
    """Computes the distance of a student to its teachers.

    For most students this is the distillation loss. Students with `target_pool` of
    "geometric" or with `member_temperatures` are compared with the plain mean too.

    Args:
      teacher_probs: [M, N, K].
      student_probs: [S, N, K].
      temperature: τ of the teachers and of the student.

    Returns:
      Means over the inputs, in nats: `match_kl`, KL(teachers ‖ student) of the means
      over members, and, of a student with a member for each of several teachers,
      `member_match_kl`, the mean over m of KL(teacher m ‖ student's member m).
    """
    values = _jit_match()(teacher_probs, student_probs, np.float32(temperature))
    return {name: float(value) for name, value in values.items()}


@functools.cache
def _jit_match() -> Callable[..., dict[str, jax.Array]]:
    """Returns `_match` as one program."""
    return jax.jit(_match, compiler_options=xla.compiler_options(runs_briefly=True))


def _match(teacher_probs, student_probs, temperature):
    # Logits up to a constant; the smallest normal float32 avoids log(0).
    smallest = np.finfo(np.float32).tiny
    teachers, student = (
        jnp.log(jnp.maximum(probs, smallest))
        for probs in (teacher_probs, student_probs)
    )

    def mean_kl(log_probs):
        target, own = (log_probs(logits, temperature) for logits in (teachers, student))
        return losses.kl_divergence(target, own).mean()

    result = {"match_kl": mean_kl(losses.mean_log_probs)}
    if 1 < len(student) == len(teachers):
        result["member_match_kl"] = mean_kl(losses.log_probs)
    return result


def compare(
    view: View, student_probs: np.ndarray, temperature: float
) -> dict[str, float]:
    """Compares a student with its teachers on the same inputs.

    Args:
      view: the inputs and the teachers' predictions.
      student_probs: the student's probabilities [S, N, K].
      temperature: τ with which it was distilled.

    Returns:
      `match` at temperature 1, and at the student's own as `tempered_...`; the
      `diversity` of the student (of one member only the error), and that of the
      teachers as `teacher_...`.
    """
    tempered = match(view.probs, student_probs, temperature)
    own = diversity(student_probs, view.labels)
    teachers = diversity(view.probs, view.labels)
    return {
        **match(view.probs, student_probs, 1.0),
        **{f"tempered_{name}": value for name, value in tempered.items()},
        **(own if len(student_probs) > 1 else {"error": own["error"]}),
        **{f"teacher_{name}": value for name, value in teachers.items()},
    }


def create_perturber(
    create_perturbation: Callable[[Any], Perturb],
    make_teachers: Callable[[Any], Teachers],
    variables: Any,
    batch_size: int,
    *,
    matched: Callable[[Any, jax.Array], jax.Array] | None = None,
    student_variables: Any = None,
    mesh: jax.sharding.Mesh | None = None,
    runs_briefly: bool = False,
) -> Perturber:
    """Creates a function that perturbs images as distillation does.

    One program serves all step sizes.

    Args:
      create_perturbation: step size, which may be traced -> perturbation.
      make_teachers: variables -> `Teachers`.
      variables: the teachers' stacked variables.
      batch_size: images per call.
      matched: that of the `Student` that the perturbation uses; None without one.
      student_variables: the variables of `matched`; on the devices only while it
        perturbs.
      mesh: the devices, or None for one device.
      runs_briefly: see `xla.compiler_options`.

    Returns:
      A function of a PRNG key, images uint8 [N, H, W, C] and the step size to
      float32 [N, H, W, C] in [0, 1].
    """

    options = xla.compiler_options(runs_briefly=runs_briefly)

    @functools.partial(jax.jit, compiler_options=options)
    def step(variables, student_variables, key, x, step_size):
        perturb = create_perturbation(step_size)
        student = matched and functools.partial(matched, student_variables)
        return perturb(key, data.to_float(x), make_teachers(variables), student)

    def perturb_in_batches(key, images, step_size):
        size = min(batch_size, len(images))
        placed = sharding.put(student_variables, mesh)
        perturbed = []
        for start in range(0, len(images), size):
            # The last batch overlaps the one before: one shape, one program.
            first = min(start, len(images) - size)
            batch_key = jax.random.fold_in(key, start)
            x = images[first:][:size]
            x = step(variables, placed, batch_key, x, step_size)
            perturbed.append(sharding.fetch(x)[start - first :])
        return np.concatenate(perturbed)

    return perturb_in_batches


def gallery(views: Mapping[str, View], size: int) -> dict[str, np.ndarray]:
    """Returns the arrays of the report's gallery.

    Args:
      views: by name, the same inputs, clean and perturbed.
      size: n, the number of inputs to show.

    Returns:
      `names` [P], `images` [P, n, H, W, C] in [0, 1], `probs` [P, M, n, K] and
      `labels` [n], of as many classes as possible.
    """
    labels = next(iter(views.values())).labels
    chosen = _one_of_each_class(labels, size)
    return {
        "names": np.array(list(views)),
        "images": np.stack([view.images[chosen] for view in views.values()]),
        "probs": np.stack([view.probs[:, chosen] for view in views.values()]),
        "labels": labels[chosen],
    }


def _one_of_each_class(labels: np.ndarray, size: int) -> np.ndarray:
    """Returns the indices of up to `size` examples, of as many classes as possible."""
    rank = np.zeros(len(labels), int)
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        rank[of_label] = np.arange(len(of_label))
    return np.argsort(rank, kind="stable")[:size]
