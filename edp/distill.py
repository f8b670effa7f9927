"""Distillation step, shared by all students and perturbations."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from edp import losses
from edp.ensemble import Teachers
from edp.errors import InputError
from edp.perturbations import Perturb
from edp.runtime import sharding
from edp.runtime.state import TrainState, split_variables
from edp.students.student import DistillBatch, Student


def create_state(
    student: Student,
    tx: optax.GradientTransformation,
    key: jax.Array,
    x: jax.Array,
    teacher_variables: Any = None,
) -> TrainState:
    """Initialises the state of `distill_step`.

    Args:
      student: the student.
      tx: the optimizer.
      key: PRNG key.
      x: an example input [1, ...].
      teacher_variables: stacked [M, ...]; read by students with `begin` only.

    Raises:
      InputError: if the student needs the teachers' variables, and they are None or of
        another network.
    """

    def init(key, x, *begin_from):
        variables = student.init(key, x)
        if student.begin is not None:
            variables = student.begin(variables, *begin_from)
        params, model_state = split_variables(variables)
        step = jnp.zeros((), jnp.int32)
        return TrainState(step, params, model_state, tx.init(params))

    begin_from = () if student.begin is None else (teacher_variables,)
    return jax.jit(init)(key, x, *begin_from)


def place(
    state: TrainState, mesh: jax.sharding.Mesh | None, *, shard_optimizer: bool
) -> TrainState:
    """Replicates the state on all devices, or shards the optimizer's part of it."""
    state = sharding.put(state, mesh)
    if shard_optimizer:
        state = state._replace(opt_state=sharding.put_spread(state.opt_state, mesh))
    return state


def distill_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    key: jax.Array,
    *,
    student: Student,
    teachers: Teachers,
    perturb: Perturb,
    tx: optax.GradientTransformation,
    clean_pass: bool = True,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Perturbs a batch, then trains the student to match the teachers on it.

    Args:
      state: from `create_state`.
      batch: `image` [B, ...] in [0, 1] and `label`, integers [B] or distributions
        [B, K]. May have `teacher_logits` [M, B, K], those of the teachers for these
        images, which are then not computed.
      key: PRNG key.
      student: a student from `edp.students.create_student`.
      teachers: the members to match.
      perturb: from `edp.perturbations.create_perturbation`, or (key, x, teachers,
        student) -> x̃. With a true attribute `identity`, one forward pass serves both
        terms; see `edp.perturbations.Perturbation`.
      tx: the optimizer.
      clean_pass: whether the label term uses the clean inputs, in a separate forward
        pass. If False, both terms use the perturbed inputs, with the labels from
        `perturb.mix_labels` where that attribute exists.
      mesh: shards the student's batch over all devices (the teachers have their own
        mesh).

    Returns:
      The new state, and the batch means of `loss` and of the student's metrics.

    Raises:
      InputError: if the batch has `teacher_logits` and `perturb` is no identity; for
        teachers of one class, such as the logit of a sigmoid [M, B, 1]; outside `jit`,
        for integer labels outside 0..K-1 (inside `jit` their label term is 0) and for
        images outside the `clip` of `perturb`.
    """
    perturb_key, student_key = jax.random.split(key)
    image = batch["image"]
    matched = student.matched and functools.partial(student.matched, state.variables)
    perturbed = perturb(perturb_key, image, teachers, matched)
    # From the attributes: comparing arrays fails, as jit returns a copy of its input.
    is_identity = getattr(perturb, "identity", False)
    one_pass = is_identity or not clean_pass
    mix_labels = None if clean_pass else getattr(perturb, "mix_labels", None)
    # Sharded for the teachers; below, over more devices, for the student.
    perturbed = sharding.constrain(perturbed, mesh, sharding.DATA)
    if "teacher_logits" in batch:
        if not is_identity:
            raise InputError(
                "batch has teacher_logits, of images that are not perturbed; accepted "
                "with a perturbation whose attribute `identity` is true, such as 'none'"
            )
        teacher_logits = batch["teacher_logits"]
        expected = (teachers.num_members, len(image), None)
        chex.assert_shape(teacher_logits, expected)
    else:
        teacher_logits = jax.lax.stop_gradient(teachers.all_logits(perturbed))
    label = batch["label"]
    losses.check_classes(teacher_logits)
    losses.check_labels(label, teacher_logits.shape[-1])
    if mix_labels is not None:
        num_classes = teacher_logits.shape[-1]
        label = jax.nn.one_hot(label, num_classes) if label.ndim == 1 else label
        label = mix_labels(perturb_key, label)
    axes = sharding.batch_axes(mesh, image.shape[0])
    image, label, perturbed = sharding.constrain((image, label, perturbed), mesh, axes)
    # The teachers run first. Otherwise XLA may schedule the student's clean pass before
    # them and keep its residuals in memory during the teachers' gradient.
    image, label, perturbed, teacher_logits = jax.lax.optimization_barrier(
        (image, label, perturbed, teacher_logits)
    )
    student_batch = DistillBatch(
        image=perturbed if one_pass else image,
        label=label,
        perturbed=None if one_pass else perturbed,
        teacher_logits=sharding.constrain(teacher_logits, mesh, None, axes),
        step=state.step,
    )

    def loss_fn(params):
        variables = {"params": params, **state.model_state}
        loss, aux = student.loss(variables, student_batch, student_key)
        return loss.mean(), aux

    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, (model_state, metrics)), grads = grad_fn(state.params)
    # Otherwise a sharded optimizer state would shard the forward passes likewise.
    grads = sharding.constrain(grads, mesh)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new_state = TrainState(state.step + 1, params, model_state, opt_state)
    return new_state, {"loss": loss, **jax.tree.map(jnp.mean, metrics)}
