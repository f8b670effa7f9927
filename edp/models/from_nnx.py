"""Flax NNX modules with the interface of Flax Linen: `init` and `apply`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from edp.errors import InputError


class NNXModel:
    """An NNX module as a pure function, for students and stacked teachers.

    Its variables are `params` and, if the module has others, `state`: running
    statistics and whatever else a forward pass may update. The state of random
    streams is not among them; a pass in training mode draws from its own key, also
    for streams of other names than those in `rngs`.
    """

    def __init__(self, create: Callable[[nnx.Rngs], nnx.Module]):
        """Keeps the constructor.

        Args:
          create: rngs -> the module, called as `module(x)` -> logits [B, K]. Its
            `train()` and `eval()` choose the mode of dropout and batch normalisation.
        """
        self._create = create

    def init(self, key: jax.Array, x: jax.Array, train: bool = False) -> dict[str, Any]:
        """Returns freshly initialised variables; x is not used."""
        del x, train
        return variables_of(self._create(nnx.Rngs(key)))

    def apply(
        self,
        variables: Mapping[str, Any],
        x: jax.Array,
        train: bool = False,
        mutable: Sequence[str] | bool = False,
        rngs: Mapping[str, jax.Array] | None = None,
    ) -> Any:
        """Computes logits [B, K]; with `mutable`, and the collections that it names.

        Raises:
          InputError: for variables without some of the module's, such as `params`
            without the running statistics in `state`; in training mode, for a module
            that draws random numbers without `rngs`: it would draw the same ones in
            every step.
        """
        # Its initial values are not used, so that the compiler drops them.
        module = self._create(_streams(rngs or {}))
        _check_complete(variables, variables_of(module))
        for collection in variables.values():
            nnx.update(module, collection)
        (module.train if train else module.eval)()
        counts = _draws(module)
        logits = module(x)
        drew = any(a is not b for a, b in zip(counts, _draws(module), strict=False))
        if train and not rngs and drew:
            raise InputError(
                f"rngs={rngs} for a module that draws random numbers in training; "
                "accepted: keys by name, such as {'dropout': key}"
            )
        if mutable is False:  # an empty list asks for updates too
            return logits
        updated = variables_of(module)
        names = updated if isinstance(mutable, bool) else mutable
        return logits, {n: tree for n, tree in updated.items() if n in names}


def _check_complete(variables, initial) -> None:
    """Raises InputError for variables that would keep their initial values."""
    given, needed = (
        {jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(tree)}
        for tree in (dict(variables), initial)
    )
    if missing := sorted(needed - given):
        raise InputError(
            f"variables lack {', '.join(missing[:3])} ({len(missing)} of {len(needed)} "
            "arrays of the module); accepted: all that `init` or `variables_of` returns"
        )


def _draws(module: nnx.Module) -> list[Any]:
    """Returns the numbers of draws of its streams; a draw replaces the array."""
    return jax.tree.leaves(nnx.state(module, nnx.RngCount))


def _streams(rngs: Mapping[str, jax.Array]) -> nnx.Rngs:
    """Returns the streams in `rngs`, and another of theirs for all other names."""
    if not rngs:
        return nnx.Rngs(0)
    *_, last = rngs.values()
    return nnx.Rngs(jax.random.fold_in(last, 1), **rngs)


def variables_of(module: nnx.Module) -> dict[str, Any]:
    """Returns the variables of an NNX module, such as a trained one, for `NNXModel`."""
    params, _, state = nnx.state(module, nnx.Param, nnx.RngState, ...)
    found = {"params": nnx.to_pure_dict(params), "state": nnx.to_pure_dict(state)}
    return {name: tree for name, tree in found.items() if tree or name == "params"}
