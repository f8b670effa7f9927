"""The distillation step: one for every student and every perturbation."""

import functools

import jax
import jax.numpy as jnp
import optax

from edp.ensemble import Teachers
from edp.perturbations import Perturb
from edp.runtime import sharding
from edp.runtime.state import TrainState, split_variables
from edp.students.student import DistillBatch, Student


def create_state(
    student: Student, tx: optax.GradientTransformation, key: jax.Array, x: jax.Array
) -> TrainState:
    """The state from which `distill_step` starts, for an example input x [1, ...]."""
    params, model_state = split_variables(jax.jit(student.init)(key, x))
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, tx.init(params))


def place(
    state: TrainState, mesh: jax.sharding.Mesh | None, *, shard_optimizer: bool
) -> TrainState:
    """Puts the state on every device; of the optimizer's, if asked, a share on each."""
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
    """Moves the inputs to where the teachers disagree and teaches the student there.

    Args:
      state: from `create_state`.
      batch: `image` [B, ...] in [0, 1] and `label`, integers [B] or distributions
        [B, K].
      key: PRNG key.
      student: what learns.
      teachers: what it learns from.
      perturb: from `edp.perturbations.create_perturbation`, or (key, x, teachers,
        student) -> x̃. An attribute `identity` that is true saves the second pass;
        see `edp.perturbations.Perturbation`.
      tx: the optimizer.
      clean_pass: the label term is taken on the clean inputs, in a pass of their
        own; if False, both terms are taken on the perturbed ones, of which labels
        and accuracy are those of `perturb.mix_labels`, if there is such an attribute.
      mesh: splits the student's batch over all devices (the teachers bring the
        mesh of their own).

    Returns:
      The new state, and `loss` with the student's own metrics, batch means.
    """
    perturb_key, student_key = jax.random.split(key)
    image = batch["image"]
    own = student.matched and functools.partial(student.matched, state.variables)
    perturbed = perturb(perturb_key, image, teachers, own)
    # Read from attributes: jit keeps these, and returns another array than its input.
    one_pass = getattr(perturb, "identity", False) or not clean_pass
    mix_labels = None if clean_pass else getattr(perturb, "mix_labels", None)
    # Split as the teachers read it; below, over more devices, for the student.
    perturbed = sharding.constrain(perturbed, mesh, sharding.DATA)
    teacher_logits = jax.lax.stop_gradient(teachers.all_logits(perturbed))
    label = batch["label"]
    if mix_labels is not None:
        num_classes = teacher_logits.shape[-1]
        label = jax.nn.one_hot(label, num_classes) if label.ndim == 1 else label
        label = mix_labels(perturb_key, label)
    axes = sharding.batch_axes(mesh, image.shape[0])
    image, label, perturbed = sharding.constrain((image, label, perturbed), mesh, axes)
    # Nothing else keeps the student's clean pass from going first, and what it
    # leaves for its gradient from lying about while the teachers compute theirs.
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
    # Or an optimizer whose memory is split would have the passes split like it.
    grads = sharding.constrain(grads, mesh)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new_state = TrainState(state.step + 1, params, model_state, opt_state)
    return new_state, {"loss": loss, **jax.tree.map(jnp.mean, metrics)}
