"""Input perturbations that reveal, or fail to reveal, what members disagree on.

Each is a pure, jittable function `fn(key, logits_fn, x, *, step_size,
temperature=1.0, clip=(0.0, 1.0), ...) -> x̃`, usable with anybody's model.
`create_perturbation` binds one to the record of teachers that distillation
passes around. A new one is a function in a file of its own and a line in
`PERTURBATIONS`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from edp.errors import InputError
from edp.perturbations.disagreement import disagreement
from edp.perturbations.noise import gaussian, none
from edp.perturbations.ods import conf_ods, ods
from edp.perturbations.quantities import QUANTITIES

__all__ = [
    "PERTURBATIONS",
    "QUANTITIES",
    "Perturb",
    "conf_ods",
    "create_perturbation",
    "disagreement",
    "gaussian",
    "none",
    "ods",
]

# (key, x, teachers, student) -> x̃
Perturb = Callable[..., jax.Array]


def random_member(key: jax.Array, teachers, student):
    """One member, drawn anew per batch: x -> [B, K]."""
    del student
    member = jax.random.randint(key, (), 0, teachers.num_members)
    return lambda x: teachers.member_logits(member, x)


def all_members(key: jax.Array, teachers, student):
    """Every member at once: x -> [M, B, K]."""
    del key, student
    return teachers.all_logits


class Method(NamedTuple):
    """A perturbation and what of the teachers it looks at."""

    fn: Callable[..., jax.Array]
    view: Callable[..., Callable[[jax.Array], jax.Array]]


PERTURBATIONS: dict[str, Method] = {
    "none": Method(none, all_members),
    "gaussian": Method(gaussian, all_members),
    "ods": Method(ods, random_member),
    "conf_ods": Method(conf_ods, random_member),
    "disagreement": Method(disagreement, all_members),
}


def create_perturbation(config: Mapping[str, Any]) -> Perturb:
    """Binds the perturbation that `config` names to records of teachers.

    Args:
      config: a mapping with `perturbation` (a name in `PERTURBATIONS`) and the
        settings of that function (`step_size`, `temperature`, ...). Keys that
        it does not take are left alone, so that one section of a configuration
        serves every method.

    Returns:
      `perturb(key, x, teachers, student=None) -> x̃`, where `teachers` is a
      record like `edp.ensemble.Teachers`. `none` returns x itself.

    Raises:
      InputError: for an unknown name.
    """
    name = config["perturbation"]
    if name not in PERTURBATIONS:
        raise InputError(
            f"perturbation={name!r} is not known; accepted: {', '.join(PERTURBATIONS)}"
        )
    method = PERTURBATIONS[name]
    parameters = inspect.signature(method.fn).parameters.values()
    accepted = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    settings = {k: config[k] for k in accepted if config.get(k) is not None}

    def perturb(key, x, teachers, student=None):
        view_key, draw_key = jax.random.split(key)
        logits_fn = method.view(view_key, teachers, student)
        return method.fn(draw_key, logits_fn, x, **settings)

    return perturb
