"""Ensembles of M networks, with parameters stacked on a leading member axis.

Other modules see an ensemble as `Teachers`: a record of functions, created from
stacked variables or from any list of networks.
"""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from edp import losses, perturbations
from edp.errors import InputError
from edp.models.teachers import (
    Teachers,
    check_member,
    teachers_from_functions,
    teachers_from_groups,
    teachers_from_loader,
    teachers_from_torch,
    temper,
)
from edp.runtime import rng, sharding
from edp.runtime.stacking import (
    STRATEGIES,
    check_members_at_once,
    default_strategy,
    member_map,
    select,
    stack,
    unstack,
)
from edp.runtime.state import TrainState, split_variables

__all__ = [
    "STRATEGIES",
    "Teachers",
    "check_members_at_once",
    "create_state",
    "default_strategy",
    "init",
    "logits",
    "member_map",
    "place",
    "select",
    "stack",
    "teachers_from_functions",
    "teachers_from_groups",
    "teachers_from_loader",
    "teachers_from_masks",
    "teachers_from_torch",
    "teachers_from_variables",
    "temper",
    "train_step",
    "unstack",
]


def init(model, keys: jax.Array, x: jax.Array, *, compiler_options=None) -> Any:
    """Initialises members independently and stacks their variables.

    Args:
      model: a Flax module called as `model(x, train=...)`.
      keys: one PRNG key per member [M].
      x: an example input [1, ...].
      compiler_options: of `jax.jit`; accepted outside jitted functions only.

    Returns:
      Variables, every leaf with a leading axis M.
    """
    # Compiled once for one member: much faster than compiling for all of them.
    one = jax.jit(
        lambda key: model.init(key, x, train=False),
        compiler_options=compiler_options,
    )
    together = jax.jit(stack, compiler_options=compiler_options)
    return together([one(keys[m]) for m in range(len(keys))])


def logits(
    model, variables, x: jax.Array, *, strategy=None, members_at_once=None, mesh=None
) -> jax.Array:
    """Computes the logits [M, B, K] of all members in evaluation mode.

    Args:
      model: a Flax module.
      variables: stacked variables.
      x: inputs [B, ...], shared by the members.
      strategy: see `member_map`.
      members_at_once: see `member_map`.
      mesh: shards the members over its `member` axis and, if it divides B, the batch
        over `data`.
    """

    mapped = member_map(
        _member(model), (0, None), strategy=strategy, members_at_once=members_at_once
    )
    data = _data_axes(mesh, x)
    return sharding.per_device(
        mapped, mesh, ((sharding.MEMBER,), data), (sharding.MEMBER, *data)
    )(variables, x)


def _member(model):
    """Returns (variables, x) -> logits [B, K] of one member.

    Programs with the same network and the same shapes share its trace.
    """
    try:
        return _traced_once(model)
    except TypeError:  # a network that is not hashable
        return _traced_once.__wrapped__(model)


@functools.lru_cache(maxsize=8)
def _traced_once(model):
    @functools.partial(jax.jit, inline=True)
    def member(variables, x):
        return model.apply(variables, x, train=False)

    return member


def _data_axes(mesh, x) -> tuple[str, ...]:
    divides = x.shape[0] % sharding.axis_size(mesh, sharding.DATA) == 0
    return (sharding.DATA,) if divides else ()


def create_state(
    model,
    tx: optax.GradientTransformation,
    keys: jax.Array,
    x: jax.Array,
    *,
    compiler_options=None,
) -> TrainState:
    """Initialises the state of `train_step`; arguments as in `init`."""
    variables = init(model, keys, x, compiler_options=compiler_options)
    params, model_state = split_variables(variables)
    init_all = jax.jit(jax.vmap(tx.init), compiler_options=compiler_options)
    opt_state = init_all(params)
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, opt_state)


def place(state: TrainState, mesh: jax.sharding.Mesh | None) -> TrainState:
    """Places each member on the devices that train it; replicates the step count."""
    members = {
        name: sharding.put(getattr(state, name), mesh, sharding.MEMBER)
        for name in ("params", "model_state", "opt_state")
    }
    return state._replace(step=sharding.put(state.step, mesh), **members)


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    key: jax.Array,
    *,
    model,
    tx: optax.GradientTransformation,
    strategy: str | None = None,
    members_at_once: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    label_smoothing: float = 0.0,
    mixup_alpha: float = 0.0,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one optimizer step of every member, each on its own batch.

    On a mesh, members never communicate; the shards of a member's batch share the
    moments of batch normalisation and the gradient.

    Args:
      state: stacked, from `create_state`.
      batch: `image` [M, B, ...] in [0, 1] and `label`, integers in 0..K-1 [M, B] or
        distributions [M, B, K].
      key: PRNG key, split over the members (for stochastic layers such as dropout).
      model: a Flax module.
      tx: the optimizer of one member.
      strategy: see `member_map`. With batches sharded over devices the default is
        'unroll' on every backend: the grouped convolutions of a vmap are not sharded,
        so every device would compute the whole batch.
      members_at_once: see `member_map`.
      mesh: shards the members over its `member` axis, batches over `data`.
      label_smoothing: see `losses.cross_entropy`.
      mixup_alpha: a above 0 trains on mixed images and labels, each member with its
        own λ and pairs; see `perturbations.mixup_pairs`. 0: no mixup.

    Returns:
      The new state and the members' `loss` (cross-entropy) and `accuracy`, [M]; with
      mixup, both count the two labels of a mixture with their shares.
      Traced labels outside 0..K-1 have loss 0; see `losses.cross_entropy`.
    """
    chex.assert_equal_shape_prefix([batch["image"], batch["label"]], 2)

    def member_step(params, model_state, opt_state, batch, key):
        image, of_labels = batch["image"], lambda of: of(batch["label"])
        if mixup_alpha:
            image, of_labels = perturbations.mix_batch(
                rng.stream(key, "mixup"), batch, mixup_alpha=mixup_alpha
            )

        def loss_fn(params):
            outputs, new_model_state = model.apply(
                {"params": params, **model_state},
                image,
                train=True,
                mutable=list(model_state),
                rngs={"dropout": key},
            )
            loss = of_labels(
                lambda y: losses.cross_entropy(outputs, y, label_smoothing).mean()
            )
            return loss, (outputs, new_model_state)

        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (outputs, new_model_state)), grads = grad_fn(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        accuracy = of_labels(lambda y: losses.accuracy(outputs, y).mean())
        metrics = {"loss": loss, "accuracy": accuracy}
        return optax.apply_updates(params, updates), new_model_state, opt_state, metrics

    keys = jax.random.split(key, batch["label"].shape[0])
    if sharding.axis_size(mesh, sharding.DATA) > 1:
        strategy = strategy or "unroll"
    step = member_map(
        member_step, (0,) * 5, strategy=strategy, members_at_once=members_at_once
    )
    step = sharding.per_device(
        step, mesh, ((sharding.MEMBER,),) * 5, (sharding.MEMBER,)
    )
    params, model_state, opt_state, metrics = step(
        state.params, state.model_state, state.opt_state, batch, keys
    )
    return TrainState(state.step + 1, params, model_state, opt_state), metrics


def teachers_from_variables(model, variables, *, strategy=None, mesh=None) -> Teachers:
    """Creates `Teachers` from stacked variables, in evaluation mode.

    Create the record inside the jitted function that takes `variables` as an
    argument; variables captured by a closure are compiled in as constants.

    On a mesh, logits (and gradients with respect to the inputs) cross the `member`
    axis, never variables. For `member_logits` each device computes one of its own
    members, and all results but that of member m are discarded: as fast as one device
    computing while the others wait.
    """
    num_members = jax.tree.leaves(variables)[0].shape[0]

    def all_logits(x, members_at_once=None):
        options = {"strategy": strategy, "members_at_once": members_at_once}
        result = logits(model, variables, x, mesh=mesh, **options)
        # Gathered once here, not in every reduction over the members.
        return sharding.constrain(result, mesh, None, *_data_axes(mesh, x))

    def member_logits(m, x):
        check_member(m, num_members)
        if mesh is None:
            return _member(model)(select(variables, m), x)

        def own_member(variables, m, x):
            size = jax.tree.leaves(variables)[0].shape[0]
            first = size * jax.lax.axis_index(sharding.MEMBER)
            nearest = jnp.clip(m - first, 0, size - 1)
            result = model.apply(select(variables, nearest), x, train=False)
            return jnp.where(first + nearest == m, result, 0)[None]

        data = _data_axes(mesh, x)
        in_axes, out_axes = ((sharding.MEMBER,), (), data), (sharding.MEMBER, *data)
        own = sharding.per_device(own_member, mesh, in_axes, out_axes)
        result = own(variables, jnp.asarray(m), x).sum(axis=0)
        return sharding.constrain(result, mesh, *data)

    return Teachers(num_members, all_logits, member_logits)


def teachers_from_masks(
    model,
    variables,
    keys: jax.Array,
    *,
    num_networks: int | None = None,
    strategy=None,
    mesh=None,
) -> Teachers:
    """Creates `Teachers` from networks under fixed dropout masks.

    Args:
      model: a Flax module that, in evaluation mode, samples one mask for all inputs
        from its `dropout` stream, as `edp.models` do.
      variables: of one network, not stacked; of several, see `num_networks`.
      keys: one PRNG key per member [M]; each key fixes one member's masks.
      num_networks: N, where `variables` are those of N networks, stacked: member m is
        network m modulo N. None: one network, not stacked.
      strategy: see `member_map`.
      mesh: shards the members over its `member` axis, batches over `data`.

    Raises:
      InputError: for one network of `edp.models` without dropout, whose members would
        all be equal.
    """
    if num_networks is None and getattr(model, "dropout_rate", None) == 0:
        raise InputError("model.dropout_rate=0 leaves equal members; accepted: above 0")

    def member(key, variables, x):
        return model.apply(variables, x, train=False, rngs={"dropout": key})

    axis, axes = (None, ()) if num_networks is None else (0, (sharding.MEMBER,))

    def all_logits(x, members_at_once=None):
        data = _data_axes(mesh, x)
        of_members = variables
        if num_networks is not None:
            of_members = select(variables, np.arange(len(keys)) % num_networks)
        mapped = member_map(
            member, (0, axis, None), strategy=strategy, members_at_once=members_at_once
        )
        in_axes, out_axes = ((sharding.MEMBER,), axes, data), (sharding.MEMBER, *data)
        per_device = sharding.per_device(mapped, mesh, in_axes, out_axes)
        result = per_device(keys, of_members, x)
        return sharding.constrain(result, mesh, None, *data)

    def member_logits(m, x):
        check_member(m, len(keys))
        if num_networks is None:
            return member(keys[m], variables, x)
        return member(keys[m], select(variables, m % num_networks), x)

    return Teachers(len(keys), all_logits, member_logits)
