"""Trees with a leading member axis, and maps over it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from edp.errors import InputError
from edp.runtime import sharding

# On GPU and TPU, vmap batches the members' kernels. On CPU, the gradients of the
# resulting grouped convolutions run 8 to 30 times slower than a loop.
_DEFAULT_STRATEGY = {"cpu": "unroll"}
STRATEGIES = ("vmap", "unroll")


def default_strategy() -> str:
    """Returns the faster strategy on the default backend."""
    return _DEFAULT_STRATEGY.get(jax.default_backend(), "vmap")


def member_map(
    fn: Callable,
    in_axes: Sequence[int | None],
    *,
    strategy: str | None = None,
    members_at_once: int | None = None,
) -> Callable:
    """Maps `fn` of one member over the members.

    Args:
      fn: a function of one member's trees and of shared arguments.
      in_axes: per argument, 0 if it is stacked, None if shared.
      strategy: 'vmap', 'unroll' (a Python loop) or None for the backend's default.
      members_at_once: n, to compute groups of n members in sequence, in the memory of
        one group; gradients rematerialise each group. None: all at once.

    Returns:
      The function of stacked arguments, returning stacked results. It raises an
      InputError if n does not divide M, or if stacked arrays differ in M.

    Raises:
      InputError: if the strategy is unknown.
    """
    strategy = strategy or default_strategy()
    if strategy not in STRATEGIES:
        raise InputError(
            f"member_strategy={strategy!r} is unknown; accepted: "
            f"{', '.join(STRATEGIES)}"
        )

    def mapped(*args):
        stacked = [a for a, axis in zip(args, in_axes, strict=True) if axis == 0]

        def of_member(own):
            own = iter(own)
            return fn(
                *(
                    next(own) if axis == 0 else shared
                    for shared, axis in zip(args, in_axes, strict=True)
                )
            )

        def of_group(group):
            if strategy == "vmap":
                return jax.vmap(of_member)(group)
            one = jax.jit(of_member, inline=True)  # traced once for all members
            return stack([one(own) for own in unstack(group)])

        num_members, *others = _sizes(stacked)
        if others:
            raise InputError(
                f"stacked arrays are of {num_members} and {others} members; accepted: "
                "arrays [M, ...] of one M"
            )
        if members_at_once in (None, num_members):
            return of_group(stacked)
        check_members_at_once("members_at_once", members_at_once, num_members)

        # Slices inside, or the loop would keep a copy of each group's slices.
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def from_member(first):
            size = members_at_once
            group = jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), stacked
            )
            return of_group(group)

        firsts = jnp.arange(0, num_members, members_at_once)
        results = jax.lax.map(from_member, firsts)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), results)

    return mapped


def _sizes(stacked: Any) -> list[int]:
    """Returns the lengths of the leading axes, ascending, each once."""
    return sorted({len(leaf) for leaf in jax.tree.leaves(stacked)})


def check_members_at_once(
    name: str,
    members_at_once: int | None,
    num_members: int,
    mesh: jax.sharding.Mesh | None = None,
) -> None:
    """Raises an InputError unless the setting `name` divides a device's members."""
    own = num_members // sharding.axis_size(mesh, sharding.MEMBER)
    if members_at_once is not None and own % members_at_once:
        divisors = [str(n) for n in range(1, own + 1) if own % n == 0]
        raise InputError(
            f"{name}={members_at_once} does not divide the {own} members of a device; "
            f"accepted: {', '.join(divisors)} or None"
        )


def stack(members: Sequence[Any]) -> Any:
    """Stacks M trees into one with a leading member axis.

    Raises:
      InputError: if there are none, or they differ in structure or shape.
    """
    if not members:
        raise InputError("cannot stack an empty list of members")
    # Not jnp.shape, which program converters replace by one that returns an array.
    shapes = [jax.tree.map(np.shape, member) for member in members]
    for m, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise InputError(
                f"member {m} has other parameters than member 0; all must have one "
                "architecture (use teachers_from_functions for others)"
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def unstack(stacked: Any) -> list[Any]:
    """Splits a stacked tree into its members; the inverse of `stack`."""
    num_members = jax.tree.leaves(stacked)[0].shape[0]
    return [select(stacked, m) for m in range(num_members)]


def select(stacked: Any, member) -> Any:
    """Returns the tree of one member; its index may be traced.

    Raises:
      InputError: for a known index beyond a leaf's leading axis, where JAX would return
        the last member.
    """
    if isinstance(member, int | np.integer):
        sizes = _sizes(stacked)
        if sizes and not -sizes[0] <= member < sizes[0]:
            raise InputError(
                f"member={member} of arrays of {sizes} members; accepted: 0 to "
                f"{sizes[0] - 1}"
            )
    return jax.tree.map(lambda leaf: leaf[member], stacked)
