"""M networks as one: parameters stacked on a leading member axis.

What the rest of the project sees of an ensemble is `Teachers`, a record of
functions that can be made from stacked variables or from any list of networks.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from edp import losses, sharding
from edp.errors import InputError
from edp.train_state import TrainState, split_variables

# On GPU and TPU vmap batches the members' kernels into one; on CPU the gradients
# of the grouped convolutions that it makes run 8 to 30 times slower than a loop.
_DEFAULT_STRATEGY = {"cpu": "unroll"}
STRATEGIES = ("vmap", "unroll")


class Teachers(NamedTuple):
    """An ensemble as functions.

    Attributes:
      num_members: M.
      all_logits: x [B, ...] -> logits [M, B, K].
      member_logits: (m, x [B, ...]) -> logits [B, K]; m may be traced.
    """

    num_members: int
    all_logits: Callable[[jax.Array], jax.Array]
    member_logits: Callable[[Any, jax.Array], jax.Array]


def default_strategy() -> str:
    """The faster strategy on the default backend."""
    return _DEFAULT_STRATEGY.get(jax.default_backend(), "vmap")


def member_map(
    fn: Callable,
    in_axes: Sequence[int | None],
    *,
    strategy: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Callable:
    """Maps `fn` of one member over the members.

    Args:
      fn: a function of one member's trees and of shared arguments.
      in_axes: per argument, 0 where it is stacked, None where shared.
      strategy: 'vmap', 'unroll' (a Python loop, stacked again) or None for the
        backend's default.
      mesh: splits the members over its `member` axis.

    Returns:
      The function of stacked arguments, returning stacked results.

    Raises:
      InputError: for an unknown strategy.
    """
    strategy = strategy or default_strategy()
    if strategy not in STRATEGIES:
        raise InputError(
            f"member_strategy={strategy!r} is not known; accepted: "
            f"{', '.join(STRATEGIES)}"
        )

    def unrolled(*args):
        stacked = [a for a, axis in zip(args, in_axes, strict=True) if axis == 0]
        results = []
        for m in range(jax.tree.leaves(stacked)[0].shape[0]):
            own = [
                select(a, m) if axis == 0 else a
                for a, axis in zip(args, in_axes, strict=True)
            ]
            results.append(fn(*own))
        return stack(results)

    mapped = unrolled if strategy == "unroll" else jax.vmap(fn, tuple(in_axes))
    return sharding.over_members(mapped, mesh, in_axes)


def stack(members: Sequence[Any]) -> Any:
    """A list of M equal trees -> one tree with a leading member axis.

    Raises:
      InputError: if the list is empty or the trees differ in structure or shape.
    """
    if not members:
        raise InputError("cannot stack an empty list of members")
    shapes = [jax.tree.map(jnp.shape, member) for member in members]
    for m, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise InputError(
                f"member {m} has other parameters than member 0; all must be of one "
                "architecture (use teachers_from_functions for any others)"
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def unstack(stacked: Any) -> list[Any]:
    """The inverse of `stack`."""
    num_members = jax.tree.leaves(stacked)[0].shape[0]
    return [select(stacked, m) for m in range(num_members)]


def select(stacked: Any, member) -> Any:
    """The tree of one member, whose index may be traced."""
    return jax.tree.map(lambda leaf: leaf[member], stacked)


def init(model, keys: jax.Array, x: jax.Array) -> Any:
    """Stacked variables of independently initialised members.

    Args:
      model: a Flax module called as `model(x, train=...)`.
      keys: one PRNG key per member [M].
      x: an example input [1, ...].

    Returns:
      Variables, every leaf with a leading axis M.
    """
    # Compiled for one member and run for each: a fraction of compiling for all.
    one = jax.jit(lambda key: model.init(key, x, train=False))
    return stack([one(keys[m]) for m in range(len(keys))])


def logits(model, variables, x: jax.Array, *, strategy=None, mesh=None) -> jax.Array:
    """Logits [M, B, K] of all members in evaluation mode, for shared x [B, ...]."""

    def member(variables, x):
        return model.apply(variables, x, train=False)

    return member_map(member, (0, None), strategy=strategy, mesh=mesh)(variables, x)


def create_state(
    model, tx: optax.GradientTransformation, keys: jax.Array, x: jax.Array
) -> TrainState:
    """The state from which `train_step` starts; arguments as in `init`."""
    params, model_state = split_variables(init(model, keys, x))
    return TrainState(
        jnp.zeros((), jnp.int32), params, model_state, jax.vmap(tx.init)(params)
    )


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    key: jax.Array,
    *,
    model,
    tx: optax.GradientTransformation,
    strategy: str | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step of every member, each on a batch of its own.

    Args:
      state: stacked, from `create_state`.
      batch: `image` [M, B, ...] in [0, 1] and `label` [M, B].
      key: PRNG key, split over the members (for models that draw, as dropout).
      model: a Flax module.
      tx: the optimizer of one member.
      strategy: see `member_map`.
      mesh: see `member_map`.

    Returns:
      The new state and the members' mean `loss` (cross-entropy) and `accuracy`.
    """
    chex.assert_equal_shape_prefix([batch["image"], batch["label"]], 2)

    def member_step(params, model_state, opt_state, batch, key):
        def loss_fn(params):
            outputs, new_model_state = model.apply(
                {"params": params, **model_state},
                batch["image"],
                train=True,
                mutable=list(model_state),
                rngs={"dropout": key},
            )
            loss = losses.cross_entropy(outputs, batch["label"]).mean()
            return loss, (outputs, new_model_state)

        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (outputs, new_model_state)), grads = grad_fn(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        accuracy = (outputs.argmax(-1) == batch["label"]).mean()
        metrics = {"loss": loss, "accuracy": accuracy}
        return optax.apply_updates(params, updates), new_model_state, opt_state, metrics

    keys = jax.random.split(key, batch["label"].shape[0])
    step = member_map(member_step, (0, 0, 0, 0, 0), strategy=strategy, mesh=mesh)
    params, model_state, opt_state, metrics = step(
        state.params, state.model_state, state.opt_state, batch, keys
    )
    new_state = TrainState(state.step + 1, params, model_state, opt_state)
    return new_state, jax.tree.map(jnp.mean, metrics)


def teachers_from_variables(model, variables, *, strategy=None, mesh=None) -> Teachers:
    """`Teachers` of stacked variables, in evaluation mode.

    Make the record inside the jitted function that gets `variables` as an
    argument; captured from outside, they would be compiled in as constants.
    """

    def all_logits(x):
        return logits(model, variables, x, strategy=strategy, mesh=mesh)

    def member_logits(m, x):
        return model.apply(select(variables, m), x, train=False)

    return Teachers(jax.tree.leaves(variables)[0].shape[0], all_logits, member_logits)


def teachers_from_functions(
    functions: Sequence[Callable[[jax.Array], jax.Array]],
) -> Teachers:
    """`Teachers` of any networks: a list of functions x [B, ...] -> logits [B, K]."""
    functions = list(functions)
    if not functions:
        raise InputError("an ensemble needs at least one function x -> logits")

    def all_logits(x):
        return jnp.stack([function(x) for function in functions])

    def member_logits(m, x):
        if isinstance(m, int):
            return functions[m](x)
        return jax.lax.switch(m, functions, x)

    return Teachers(len(functions), all_logits, member_logits)
