"""An ensemble as functions, and its construction from functions of any kind."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from edp.errors import InputError
from edp.models import from_torch
from edp.runtime.stacking import check_members_at_once


class Teachers(NamedTuple):
    """An ensemble as a record of functions.

    Attributes:
      num_members: M.
      all_logits: x [B, ...] -> logits [M, B, K]. Its keyword `members_at_once` limits
        the memory of its gradient to that of so many members.
      member_logits: (m, x [B, ...]) -> logits [B, K]; m, from 0 to M-1, may be traced.
      differentiable: whether JAX can differentiate the logits with respect to x. If
        not, perturbations that need the gradient raise an InputError.
    """

    num_members: int
    all_logits: Callable[..., jax.Array]
    member_logits: Callable[[Any, jax.Array], jax.Array]
    differentiable: bool = True


def check_member(member: Any, num_members: int) -> None:
    """Raises InputError for an index outside 0..M-1, unless it is traced.

    JAX would take the last member instead, and on a mesh none.
    """
    if isinstance(member, int | np.integer) and not 0 <= member < num_members:
        raise InputError(
            f"member={member} of {num_members} teachers; accepted: 0 to "
            f"{num_members - 1}"
        )


def teachers_from_loader(
    model, load: Callable[[int], Any], like: Any, num_members: int
) -> Teachers:
    """Creates `Teachers` that load one member at a time, on every use.

    For more members than fit in memory. Gradients load each member a second time.

    Args:
      model: a Flax module.
      load: member index, from 0 -> the variables of one network as NumPy arrays, for
        example with `checkpoint.load_arrays`. Called on the host; must not use JAX.
      like: a tree of arrays, or of shapes and dtypes, like the result of `load`.
      num_members: M.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)

    def member_logits(m, x):
        check_member(m, num_members)
        variables = jax.pure_callback(
            lambda m: load(int(m)), shapes, m, vmap_method="sequential"
        )
        return model.apply(variables, x, train=False)

    def all_logits(x, members_at_once=None):
        del members_at_once  # always one
        # Without the checkpoint, gradients would keep the variables of all members.
        one = jax.checkpoint(lambda m: member_logits(m, x), prevent_cse=False)
        return jax.lax.map(one, jnp.arange(num_members))

    return Teachers(num_members, all_logits, member_logits)


def teachers_from_functions(
    functions: Sequence[Callable[[jax.Array], jax.Array]],
    *,
    differentiable: bool = True,
) -> Teachers:
    """Creates `Teachers` from any networks.

    Args:
      functions: one function x [B, ...] -> logits [B, K] per member.
      differentiable: False for functions that JAX cannot differentiate, such as a
        `jax.pure_callback` or a program of `jax.export`.

    Returns:
      The record. Its functions raise an InputError that names a member whose logits
      differ from those of member 0 in shape or, where `jax.lax.switch` needs it, dtype.

    Raises:
      InputError: for an empty list.
    """
    functions = list(functions)
    if not functions:
        raise InputError("functions=[] is empty; accepted: at least one x -> logits")

    def all_logits(x, members_at_once=None):
        check_members_at_once("members_at_once", members_at_once, len(functions))
        one = jax.checkpoint if members_at_once is not None else (lambda f: f)
        results = [one(function)(x) for function in functions]
        # Not jnp.shape: see `stacking.stack`.
        _check_equal([list(np.shape(result)) for result in results])
        return jnp.stack(results)

    def member_logits(m, x):
        check_member(m, len(functions))
        if isinstance(m, int | np.integer):
            return functions[m](x)
        try:
            return jax.lax.switch(m, functions, x)
        except TypeError:  # its message names branches of a conditional
            results = [jax.eval_shape(function, x) for function in functions]
            _check_equal([f"{r.dtype.name}{list(r.shape)}" for r in results])
            raise

    return Teachers(len(functions), all_logits, member_logits, differentiable)


def teachers_from_groups(groups: Sequence[Teachers]) -> Teachers:
    """Creates `Teachers` whose members are those of several ensembles, in order.

    Args:
      groups: ensembles of any networks, with the same classes.

    Raises:
      InputError: for an empty list; and from `all_logits`, where the logits of two
        groups differ in shape.
    """
    groups = list(groups)
    if not groups:
        raise InputError("groups=[] is empty; accepted: at least one ensemble")
    sizes = [group.num_members for group in groups]
    places = [(g, m) for g, size in enumerate(sizes) for m in range(size)]

    def all_logits(x, members_at_once=None):
        options = (
            {} if members_at_once is None else {"members_at_once": members_at_once}
        )
        results = [group.all_logits(x, **options) for group in groups]
        _check_equal([list(np.shape(result)[1:]) for result in results], "group")
        return jnp.concatenate(results)

    def member_logits(m, x):
        check_member(m, sum(sizes))
        if isinstance(m, int | np.integer):
            group, own = places[m]
            return groups[group].member_logits(own, x)
        group, own = jnp.asarray(places)[m]
        return jax.lax.switch(group, [one.member_logits for one in groups], own, x)

    differentiable = all(group.differentiable for group in groups)
    return Teachers(sum(sizes), all_logits, member_logits, differentiable)


def temper(teachers: Teachers, temperatures: ArrayLike) -> Teachers:
    """Divides the logits of each member by a temperature of its own.

    Args:
      teachers: M members.
      temperatures: positive [M]; may be traced.

    Raises:
      InputError: for another number of temperatures, or, where they are not traced, one
        that is not positive.
    """
    if np.shape(temperatures) != (teachers.num_members,):
        raise InputError(
            f"temperatures has shape {list(np.shape(temperatures))}; accepted: "
            f"[{teachers.num_members}], one for each member"
        )
    if not isinstance(temperatures, jax.core.Tracer):
        values = np.asarray(temperatures)
        if not (np.isfinite(values) & (values > 0)).all():
            raise InputError(
                f"temperatures={values.tolist()}; accepted: positive numbers"
            )

    def all_logits(x, **options):
        logits = teachers.all_logits(x, **options)
        return logits / jnp.asarray(temperatures, logits.dtype)[:, None, None]

    def member_logits(m, x):
        logits = teachers.member_logits(m, x)
        return logits / jnp.asarray(temperatures, logits.dtype)[m]

    return teachers._replace(all_logits=all_logits, member_logits=member_logits)


def _check_equal(logits: Sequence[Any], name: str = "teacher") -> None:
    for m, found in enumerate(logits):
        if found != logits[0]:
            raise InputError(
                f"{name} {m} returns logits {found}; accepted: {logits[0]}, as "
                f"returned by {name} 0"
            )


def teachers_from_torch(modules, state_dicts=None, *, mean=None, std=None) -> Teachers:
    """Creates `Teachers` from PyTorch modules, as `edp.models.from_torch.functions`.

    The weights become constants of a jitted function; to pass them as an argument, use
    `teachers_from_variables` with `edp.models.from_torch.TorchModel`.
    """
    functions = from_torch.functions(modules, state_dicts, mean=mean, std=std)
    return teachers_from_functions(functions)
