"""A BatchEnsemble, each of whose subnetworks learns from a teacher of its own."""

from collections.abc import Callable

from edp import losses, models
from edp.students.matching import matching_student
from edp.students.record import Student


def batch_ensemble(
    build_model: Callable,
    *,
    num_members: int,
    factor_init: str,
    alpha: float,
    temperature: float,
) -> Student:
    """Subnetwork m matches member m, one-to-one (arXiv 2110.14149, section 3.1)."""
    model = build_model(num_members=num_members, factor_init=factor_init)
    return matching_student(
        model,
        num_members,
        losses.log_probs,
        alpha=alpha,
        temperature=temperature,
        rank_one=models.rank_one_mask,
    )
