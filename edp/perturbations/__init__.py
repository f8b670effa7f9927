"""Input perturbations, with or without the gradient of the members' disagreement.

Each perturbation is a pure, jittable function `fn(key, logits_fn, x, *, step_size,
temperature=1.0, clip=(0.0, 1.0), ...) -> x̃` and works with any model.
`create_perturbation` binds one to the `Teachers` record that distillation passes
around. To add one, write a function in its own file and add a line to
`PERTURBATIONS`. A name such as 'mixup+ods' applies several in sequence.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from edp.errors import InputError
from edp.perturbations.bound import Perturbation
from edp.perturbations.disagreement import disagreement
from edp.perturbations.mixup import mix_batch, mix_labels, mixup, mixup_pairs
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
    "mix_batch",
    "mix_labels",
    "mixup",
    "mixup_pairs",
    "none",
    "ods",
    "tdiv_sdiv",
]

# (key, x, teachers, student) -> x̃: a `Perturbation` or any function
Perturb = Callable[..., jax.Array]


def no_members(key: jax.Array, teachers, student):
    """Returns None, for perturbations that call no model."""
    del key, teachers, student


def random_member(key: jax.Array, teachers, student):
    """Returns one member, sampled per batch: x -> [B, K]."""
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
    """Returns all members, or a sample of them per batch: x -> [M, B, K].

    Args:
      key: PRNG key.
      teachers: a record like `edp.ensemble.Teachers`.
      student: ignored.
      members_at_once: with all members, the gradient takes the memory of this many.
      random_members: the number of members sampled without replacement; each costs
        one forward pass. None: all.

    Raises:
      InputError: see `check_random_members`.
    """
    del student
    check_random_members("random_members", random_members, teachers.num_members)
    if random_members not in (None, teachers.num_members):
        sample = jax.random.permutation(key, teachers.num_members)[:random_members]
        return lambda x: jnp.stack([teachers.member_logits(m, x) for m in sample])
    if members_at_once is None:
        return teachers.all_logits
    return functools.partial(teachers.all_logits, members_at_once=members_at_once)


def member_pair(key: jax.Array, teachers, student):
    """Returns two members, sampled per batch: x -> ([2, B, K], the student's or None).

    The student's logits are those of its members with the same two indices.

    Raises:
      InputError: if there is one member.
    """
    if teachers.num_members < 2:
        raise InputError(
            f"teachers.num_members={teachers.num_members}; accepted: at least 2 members"
        )
    order = jax.random.permutation(key, teachers.num_members)
    pair = order[:2]

    def logits_fn(x):
        teacher_logits = jnp.stack([teachers.member_logits(m, x) for m in pair])
        if student is None:
            return teacher_logits, None
        student_logits = student(x)
        chex.assert_axis_dimension(student_logits, 0, teachers.num_members)
        return teacher_logits, student_logits[pair]

    return logits_fn


def check_random_members(name: str, value: int | None, num_members: int) -> None:
    """Raises InputError unless `value` is None or from 2 to `num_members`."""
    if value is not None and not 2 <= value <= num_members:
        raise InputError(
            f"{name}={value} is out of range; accepted: 2 to {num_members} (the number "
            "of teachers), or None for all of them"
        )


def check_num_members(
    section: str, settings: Mapping[str, Any], num_members: int
) -> None:
    """Checks that there are as many members as a perturbation compares.

    Args:
      section: name of the settings in messages, such as 'students.mine'.
      settings: the argument of `create_perturbation`.
      num_members: M.

    Raises:
      InputError: if it compares members of a single one, or samples more than M.
    """
    chosen = methods(settings["perturbation"])
    if num_members == 1 and any(method.compares_members for method in chosen):
        others = [name for name, m in PERTURBATIONS.items() if not m.compares_members]
        raise InputError(
            f"{section}.perturbation={settings['perturbation']!r} compares members, "
            f"and there is one teacher; accepted: {', '.join(others)}, or more teachers"
        )
    if any(method.select_members is members for method in chosen):
        check_random_members(
            f"{section}.random_members", settings.get("random_members"), num_members
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
    """A perturbation and the properties that `distill_step` reads.

    Attributes:
      fn: `(key, logits_fn, x, *, settings) -> x̃`.
      select_members: `(key, teachers, student, *, settings) -> logits_fn`, the
        argument that `fn` reads.
      compares_members: whether `fn` needs several members.
      uses_student: whether `select_members` calls the student, where the student has
        one member per teacher. If so, x̃ depends on the student's variables.
      uses_gradients: whether `fn` differentiates `logits_fn` with respect to x.
      identity: `fn` returns x itself.
      mix_labels: `(key, labels, *, settings) -> labels`, both label distributions
        [B, K]; those of x̃ from the key of `fn` and a subset of its settings. None
        where each input keeps its label, as under noise and small perturbations.
    """

    fn: Callable[..., jax.Array]
    select_members: Callable[..., Callable[[jax.Array], jax.Array]]
    compares_members: bool = False
    uses_student: bool = False
    uses_gradients: bool = False
    identity: bool = False
    mix_labels: Callable[..., jax.Array] | None = None

    @property
    def functions(self) -> tuple[Callable, Callable]:
        """The functions whose keyword-only arguments are the settings."""
        return self.fn, self.select_members

    @property
    def uses_teachers(self) -> bool:
        """Whether x̃ depends on the teachers."""
        return self.select_members is not no_members


PERTURBATIONS: dict[str, Method] = {
    "none": Method(none, no_members, identity=True),
    "gaussian": Method(gaussian, no_members),
    "mixup": Method(mixup, no_members, mix_labels=mix_labels),
    "ods": Method(ods, random_member, uses_gradients=True),
    "conf_ods": Method(conf_ods, random_member, uses_gradients=True),
    "disagreement": Method(
        disagreement, members, compares_members=True, uses_gradients=True
    ),
    "tdiv_sdiv": Method(
        tdiv_sdiv,
        member_pair,
        compares_members=True,
        uses_student=True,
        uses_gradients=True,
    ),
}


def methods(name: str) -> list[Method]:
    """Returns the methods of a name such as 'ods' or 'mixup+disagreement'.

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
    """Binds the perturbation named in `config` to its settings.

    Args:
      config: a mapping with `perturbation` (a name in `PERTURBATIONS`, or several
        joined by '+', applied in sequence) and the settings of those functions
        (`step_size`, `temperature`, `clip`, ...) and of their choice of members.
        `members_at_once`: the gradient over all members takes the memory of this many
        and computes each forward pass twice. `random_members`: the number of members
        sampled per batch. Other keys are ignored, so one section of a configuration
        serves every method. None is passed on to a setting that accepts it
        (`clip=None`: no clipping); elsewhere None means the default.

    Returns:
      `perturb(key, x, teachers, student=None) -> x̃`. `teachers` is a record like
      `edp.ensemble.Teachers`; `student` is x -> logits [M, B, K] where the student
      has one member per teacher. `none` returns x itself. A sequence is the identity
      if all its parts are, and mixes labels part by part.

    Raises:
      InputError: for an unknown name.
    """
    bound = [_bind(method, config) for method in methods(config["perturbation"])]
    if len(bound) == 1:
        return bound[0]

    def parts(key):
        return zip(bound, jax.random.split(key, len(bound)), strict=True)

    def perturb(key, x, teachers, student=None):
        for part, part_key in parts(key):
            x = part(part_key, x, teachers, student)
        return x

    def mix(key, probs):
        for part, part_key in parts(key):
            probs = part.mix_labels(part_key, probs) if part.mix_labels else probs
        return probs

    return Perturbation(
        perturb,
        identity=all(part.identity for part in bound),
        mix_labels=mix if any(part.mix_labels for part in bound) else None,
    )


def _bind(method: Method, config: Mapping[str, Any]) -> Perturbation:
    settings = _settings(method.fn, config)
    member_settings = _settings(method.select_members, config)
    mix_labels = method.mix_labels

    def perturb(key, x, teachers, student=None):
        if method.uses_gradients:
            check_differentiable(config["perturbation"], teachers)
        member_key, fn_key = jax.random.split(key)
        logits_fn = method.select_members(
            member_key, teachers, student, **member_settings
        )
        return method.fn(fn_key, logits_fn, x, **settings)

    if mix_labels is None:
        return Perturbation(perturb, identity=method.identity)
    label_settings = _settings(mix_labels, config)

    def mix(key, probs):
        _, fn_key = jax.random.split(key)
        return mix_labels(fn_key, probs, **label_settings)

    return Perturbation(perturb, identity=method.identity, mix_labels=mix)


def _settings(fn: Callable, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keyword-only arguments of `fn` that `config` sets.

    None counts as set only where the annotation of the argument allows it.
    """
    parameters = inspect.signature(fn).parameters.values()
    keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name in config]
    return {
        p.name: config[p.name]
        for p in keywords
        if config[p.name] is not None or type(None) in typing.get_args(p.annotation)
    }
