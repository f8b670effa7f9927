"""Students that match the teachers' tempered probabilities, member by member."""

from collections.abc import Callable

import jax

from edp import losses
from edp.errors import InputError
from edp.students import forward
from edp.students.student import DistillBatch, Student


def matching_student(
    model,
    num_members: int,
    targets: Callable[[jax.Array, float], jax.Array],
    *,
    alpha: float,
    temperature: float,
    label_smoothing: float = 0.0,
    distillation: Callable = losses.distillation,
) -> Student:
    """Creates a student trained with a label and a distillation term on its logits.

    L = (1 − α) CE(student(x), y) + α τ² KL(teacher(x̃; τ) ‖ student(x̃; τ)), each
    term the mean over the student's members (arXiv 2110.14149, eq. 3 and 4).

    Args:
      model: a Flax module with outputs [B, K] or [S, B, K].
      num_members: S.
      targets: (teacher logits [M, B, K], τ) -> log-probabilities [S, B, K].
      alpha: weight of the distillation term, in [0, 1].
      temperature: τ > 0.
      label_smoothing: that of the label term; see `losses.cross_entropy`.
      distillation: (targets, logits [S, B, K], τ) -> the distillation term, of which
        the mean over the leading axis is taken.

    Returns:
      The student. With two forward passes, the clean one updates the running
      statistics first, then the perturbed one.

    Raises:
      InputError: for a weight outside [0, 1], or a temperature that is not above 0.
    """
    if not (0 <= alpha <= 1 and temperature > 0):
        raise InputError(
            f"alpha={alpha}, temperature={temperature} is out of range; accepted: "
            "alpha from 0 to 1, a temperature above 0"
        )

    def loss(variables, batch: DistillBatch, key):
        clean_key, perturbed_key = jax.random.split(key)
        logits, variables = forward.forward(
            model, variables, batch.image, key=clean_key
        )
        label_term = losses.cross_entropy(logits, batch.label, label_smoothing)
        label_term = label_term.mean(axis=0)
        accuracy = forward.accuracy(logits, batch.label).mean(axis=0)
        if batch.perturbed is not None:
            logits, variables = forward.forward(
                model, variables, batch.perturbed, key=perturbed_key
            )
        target = targets(batch.teacher_logits, temperature)
        term = distillation(target, logits, temperature).mean(axis=0)
        total = (1 - alpha) * label_term + alpha * term
        scores = {"label_loss": label_term, "distillation_loss": term}
        aux = forward.model_state(variables), {**scores, "accuracy": accuracy}
        return total, aux

    def matched(variables, x):
        return model.apply(variables, x, train=False)

    predict, uncertainty = forward.predictors_of_logits(model)
    return Student(
        num_members=num_members,
        inference_cost=float(num_members),
        init=forward.create_init(model),
        loss=loss,
        finalise=lambda variables: variables,
        predict=predict,
        uncertainty=uncertainty,
        matched=matched if num_members > 1 else None,
    )
