"""Input perturbations that reveal, or fail to reveal, what members disagree on.

Each is a pure, jittable function `fn(key, logits_fn, x, *, step_size,
temperature=1.0, clip=(0.0, 1.0), ...) -> x̃`, usable with anybody's model.
`create_perturbation` binds one to the record of teachers that distillation
passes around. A new one is a function in a file of its own and a line in
`PERTURBATIONS`. Several are applied one after the other by the name 'mixup+ods'.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from edp.errors import InputError
from edp.perturbations.bound import Perturbation
from edp.perturbations.disagreement import disagreement
from edp.perturbations.mixup import mix_labels, mixup
from edp.perturbations.noise import gaussian, none
from edp.perturbations.objectives import QUANTITIES
from edp.perturbations.ods import conf_ods, ods
from edp.perturbations.tdiv_sdiv import tdiv_sdiv

__all__ = [
    "PERTURBATIONS",
    "QUANTITIES",
    "Method",
    "Perturb",
    "Perturbation",
    "conf_ods",
    "create_perturbation",
    "disagreement",
    "gaussian",
    "methods",
    "mix_labels",
    "mixup",
    "none",
    "ods",
    "tdiv_sdiv",
]

# (key, x, teachers, student) -> x̃; a `Perturbation`, or any function
Perturb = Callable[..., jax.Array]


def no_members(key: jax.Array, teachers, student):
    """For what looks at no model."""
    del key, teachers, student


def random_member(key: jax.Array, teachers, student):
    """One member, drawn anew per batch: x -> [B, K]."""
    del student
    member = jax.random.randint(key, (), 0, teachers.num_members)
    return lambda x: teachers.member_logits(member, x)


def members(
    key: jax.Array,
    teachers,
    student,
    *,
    members_at_once: int | None = None,
    random_members: int | None = None,
):
    """Every member, or some drawn anew per batch: x -> [M, B, K].

    All are differentiable in the memory of `members_at_once`; a few drawn, without
    replacement, cost that few passes.
    """
    del student
    check_random_members("random_members", random_members, teachers.num_members)
    if random_members not in (None, teachers.num_members):
        drawn = jax.random.permutation(key, teachers.num_members)[:random_members]
        return lambda x: jnp.stack([teachers.member_logits(m, x) for m in drawn])
    if members_at_once is None:
        return teachers.all_logits
    return functools.partial(teachers.all_logits, members_at_once=members_at_once)


def member_pair(key: jax.Array, teachers, student):
    """Two members drawn anew per batch: x -> [2, B, K], and the student's same two."""
    drawn = jax.random.permutation(key, teachers.num_members)
    pair = drawn[jnp.array([0, -1])]  # of one member, that one twice

    def logits_fn(x):
        of_teachers = jnp.stack([teachers.member_logits(m, x) for m in pair])
        return of_teachers, None if student is None else student(x)[pair]

    return logits_fn


def check_random_members(name: str, value: int | None, num_members: int) -> None:
    """Raises InputError for a number of members that cannot be drawn, or disagree."""
    if value is not None and not 2 <= value <= num_members:
        raise InputError(
            f"{name}={value} must be from 2 to the number of teachers, {num_members}, "
            "or None for all of them"
        )


def check_differentiable(name: str, teachers) -> None:
    """Raises InputError for teachers whose logits JAX cannot differentiate."""
    if getattr(teachers, "differentiable", True):
        return
    without = [name for name, m in PERTURBATIONS.items() if not m.uses_gradients]
    raise InputError(
        f"perturbation={name!r} needs gradients of the teachers' logits with respect "
        "to the inputs, and these teachers give none (differentiable=False); "
        f"accepted: {', '.join(without)}"
    )


class Method(NamedTuple):
    """A perturbation, and what `distill_step` must know of it.

    Attributes:
      fn: (key, logits_fn, x, *, settings) -> x̃.
      view: (key, teachers, student, *, settings) -> the `logits_fn` of `fn`.
      uses_student: whether `view` reads the student, where it has a member for each
        teacher: then x̃ depends on the student's variables.
      uses_gradients: whether `fn` differentiates `logits_fn` with respect to x.
      identity: `fn` returns x itself.
      mix_labels: (key, label distributions [B, K], *, settings) -> those of x̃, from
        the key and settings of `fn`, of which it may take some. None where an input
        keeps its label, as under noise and moves that are short.
    """

    fn: Callable[..., jax.Array]
    view: Callable[..., Callable[[jax.Array], jax.Array]]
    uses_student: bool = False
    uses_gradients: bool = False
    identity: bool = False
    mix_labels: Callable[..., jax.Array] | None = None

    @property
    def functions(self) -> tuple[Callable, Callable]:
        """Those whose keyword-only arguments are the settings."""
        return self.fn, self.view


PERTURBATIONS: dict[str, Method] = {
    "none": Method(none, no_members, identity=True),
    "gaussian": Method(gaussian, no_members),
    "mixup": Method(mixup, no_members, mix_labels=mix_labels),
    "ods": Method(ods, random_member, uses_gradients=True),
    "conf_ods": Method(conf_ods, random_member, uses_gradients=True),
    "disagreement": Method(disagreement, members, uses_gradients=True),
    "tdiv_sdiv": Method(tdiv_sdiv, member_pair, uses_student=True, uses_gradients=True),
}


def methods(name: str) -> list[Method]:
    """The methods that a name like 'ods' or 'mixup+disagreement' stands for.

    Raises:
      InputError: for an unknown name.
    """
    parts = name.split("+")
    for part in parts:
        if part not in PERTURBATIONS:
            raise InputError(
                f"perturbation={name!r} is not known; accepted: "
                f"{', '.join(PERTURBATIONS)}, or several joined by +"
            )
    return [PERTURBATIONS[part] for part in parts]


def create_perturbation(config: Mapping[str, Any]) -> Perturbation:
    """Binds the perturbation that `config` names to records of teachers.

    Args:
      config: a mapping with `perturbation` (a name in `PERTURBATIONS`, or several
        joined by '+', of which each moves what the one before it made) and the
        settings of those functions (`step_size`, `temperature`, ...) and of their
        views of the teachers (`members_at_once`: the gradient of all members takes
        the memory of that many, and computes each forward pass twice;
        `random_members`: so many of them, drawn anew per batch). Keys that
        none takes are left alone, so that one section of a configuration
        serves every method.

    Returns:
      `perturb(key, x, teachers, student=None) -> x̃`, where `teachers` is a
      record like `edp.ensemble.Teachers` and `student`, if it has a member for each
      of them, gives these's logits, x -> [M, B, K]. `none` returns x itself. A chain
      is the identity if all its parts are, and mixes labels part by part.

    Raises:
      InputError: for an unknown name.
    """
    bound = [_bind(method, config) for method in methods(config["perturbation"])]
    if len(bound) == 1:
        return bound[0]

    def parts(key):
        return zip(bound, jax.random.split(key, len(bound)), strict=True)

    def perturb(key, x, teachers, student=None):
        for one, own_key in parts(key):
            x = one(own_key, x, teachers, student)
        return x

    def mix(key, probs):
        for one, own_key in parts(key):
            probs = one.mix_labels(own_key, probs) if one.mix_labels else probs
        return probs

    return Perturbation(
        perturb,
        identity=all(one.identity for one in bound),
        mix_labels=mix if any(one.mix_labels for one in bound) else None,
    )


def _bind(method: Method, config: Mapping[str, Any]) -> Perturbation:
    settings = _accepted(method.fn, config)
    view_settings = _accepted(method.view, config)
    mix_labels = method.mix_labels

    def perturb(key, x, teachers, student=None):
        if method.uses_gradients:
            check_differentiable(config["perturbation"], teachers)
        view_key, draw_key = jax.random.split(key)
        logits_fn = method.view(view_key, teachers, student, **view_settings)
        return method.fn(draw_key, logits_fn, x, **settings)

    if mix_labels is None:
        return Perturbation(perturb, identity=method.identity)
    label_settings = _accepted(mix_labels, config)

    def mix(key, probs):
        _, draw_key = jax.random.split(key)
        return mix_labels(draw_key, probs, **label_settings)

    return Perturbation(perturb, identity=method.identity, mix_labels=mix)


def _accepted(fn: Callable, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that `fn` takes, without those that are None."""
    parameters = inspect.signature(fn).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    return {name: config[name] for name in names if config.get(name) is not None}
