"""Single student: one plain network."""

from collections.abc import Callable

from edp import losses
from edp.students.matching import matching_student
from edp.students.student import Student


def single(
    build_model: Callable,
    *,
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
) -> Student:
    """Creates a plain network that matches the mean of the members' probabilities.

    (Hinton et al., 2015, with an ensemble as the teacher.)
    """

    def targets(teacher_logits, temperature):
        return losses.mean_log_probs(teacher_logits, temperature)[None]

    return matching_student(
        build_model(),
        1,
        targets,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=label_smoothing,
    )
