"""Single student: one plain network."""

from collections.abc import Callable

from edp import losses
from edp.errors import InputError
from edp.students.matching import matching_student
from edp.students.student import Student

# Pools logits of the teachers [M, B, K], at a temperature, to log-probabilities [B, K].
TARGET_POOLS = {
    "arithmetic": losses.mean_log_probs,
    "geometric": losses.geometric_mean_log_probs,
}


def single(
    build_model: Callable,
    *,
    alpha: float,
    temperature: float,
    target_pool: str = "arithmetic",
    label_smoothing: float = 0.0,
) -> Student:
    """Creates a plain network that matches the pooled prediction of the teachers.

    (Hinton et al., 2015, with an ensemble as the teacher.)

    Args:
      build_model: builds the network.
      alpha: weight of the distillation term; see `matching_student`.
      temperature: τ.
      target_pool: "arithmetic", the mean of the members' probabilities, or
        "geometric", their normalised geometric mean; see `losses`.
      label_smoothing: see `losses.cross_entropy`.

    Raises:
      InputError: for an unknown pool.
    """
    if target_pool not in TARGET_POOLS:
        raise InputError(
            f"target_pool={target_pool!r} is not known; accepted: "
            f"{', '.join(TARGET_POOLS)}"
        )
    pool = TARGET_POOLS[target_pool]

    def targets(teacher_logits, temperature):
        return pool(teacher_logits, temperature)[None]

    return matching_student(
        build_model(),
        1,
        targets,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=label_smoothing,
    )
