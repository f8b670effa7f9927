"""BatchEnsemble student: each subnetwork matches one teacher."""

from collections.abc import Callable

from edp import losses, models
from edp.runtime import optimizers
from edp.students.matching import matching_student
from edp.students.student import Student


def batch_ensemble(
    build_model: Callable,
    *,
    num_members: int,
    factor_init: str,
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
) -> Student:
    """Creates a student whose subnetwork m matches member m (one-to-one).

    (arXiv 2110.14149, section 3.1.) The rank-one factors have no weight decay and a
    separate learning rate (Wen et al., 2020; half of that of the other parameters in
    arXiv 2110.14149).
    """
    model = build_model(num_members=num_members, factor_init=factor_init)
    student = matching_student(
        model,
        num_members,
        losses.log_probs,
        alpha=alpha,
        temperature=temperature,
        label_smoothing=label_smoothing,
    )
    return student._replace(rule=optimizers.decay_all_but(models.rank_one_mask))
