"""Learning-rate schedules and the optimizer of teachers and students."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from edp.errors import InputError

Schedule = Callable[[jax.Array], jax.Array]
# (the mapping of `create_optimizer`, SGD) -> SGD with what goes before and after it,
# such as the decay of weights.
Rule = Callable[
    [Mapping[str, Any], optax.GradientTransformation], optax.GradientTransformation
]


def step_linear(
    peak: float, num_epochs: int, steps_per_epoch: int, milestones: tuple[int, int]
) -> Schedule:
    """The paper's schedule, constant within an epoch (arXiv 2110.14149, app. B).

    With e the 1-based epoch, as a factor of the peak: 0.01 + 0.99 (e − 1)/4 for
    e < 5; 1 for e < E1; 1 − 0.99 (e − E1)/(E2 − E1) for e < E2; then 0.01.
    """
    del num_epochs
    first, second = milestones

    def schedule(count):
        e = count // steps_per_epoch + 1.0
        warm = 0.01 + 0.99 * (e - 1) / 4
        decay = 1 - 0.99 * (e - first) / (second - first)
        late = jnp.where(e < first, 1.0, jnp.where(e < second, decay, 0.01))
        return peak * jnp.where(e < 5, warm, late)

    return schedule


def cosine(
    peak: float, num_epochs: int, steps_per_epoch: int, warmup_epochs: float
) -> Schedule:
    """Linear warm-up from 0, then a half cosine to 0 at the last step."""
    steps = num_epochs * steps_per_epoch
    warmup = min(round(warmup_epochs * steps_per_epoch), steps - 1)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else peak, peak, warmup, steps
    )


def cyclic(peak: float, num_epochs: int, steps_per_epoch: int, cycles: int) -> Schedule:
    """Equal cycles of a half cosine from the peak to 0 (arXiv 1704.00109, eq. 2)."""
    steps = num_epochs * steps_per_epoch // cycles

    def schedule(count):
        return peak / 2 * (1 + jnp.cos(jnp.pi * (count % steps) / steps))

    return schedule


def constant(peak: float, num_epochs: int, steps_per_epoch: int) -> Schedule:
    """The peak throughout."""
    del num_epochs, steps_per_epoch
    return optax.constant_schedule(peak)


# Each: the schedule and the settings that it takes.
SCHEDULES: dict[str, tuple[Callable[..., Schedule], tuple[str, ...]]] = {
    "step_linear": (step_linear, ("milestones",)),
    "cosine": (cosine, ("warmup_epochs",)),
    "constant": (constant, ()),
    "cyclic": (cyclic, ("cycles",)),
}


def create_schedule(config: Mapping[str, Any], steps_per_epoch: int) -> Schedule:
    """The schedule that `config` names: step count -> learning rate.

    Args:
      config: a mapping with `schedule` (a name in `SCHEDULES`), `learning_rate`,
        `num_epochs`, and `milestones`, `warmup_epochs` or `cycles` where they apply.
      steps_per_epoch: training steps in one epoch.

    Raises:
      InputError: for an unknown schedule.
    """
    name = config["schedule"]
    if name not in SCHEDULES:
        raise InputError(
            f"schedule={name!r} is not known; accepted: {', '.join(SCHEDULES)}"
        )
    schedule, settings = SCHEDULES[name]
    return schedule(
        config["learning_rate"],
        config["num_epochs"],
        steps_per_epoch,
        **{key: config[key] for key in settings},
    )


def decay_all(
    config: Mapping[str, Any], sgd: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The rule of L2 decay, `weight_decay`, on every parameter."""
    return optax.chain(optax.add_decayed_weights(config["weight_decay"]), sgd)


def decay_all_but(factors: Callable[[Any], Any]) -> Rule:
    """The rule of L2 decay that spares factors, which learn at a rate of their own.

    Args:
      factors: params -> the same tree of bools, True where neither decay applies
        nor the learning rate, but the rate times `rank_one_lr_factor`.
    """

    def decayed(params):
        return jax.tree.map(lambda is_factor: not is_factor, factors(params))

    def rule(config, sgd):
        return optax.chain(
            optax.add_decayed_weights(config["weight_decay"], mask=decayed),
            sgd,
            optax.masked(optax.scale(config["rank_one_lr_factor"]), factors),
        )

    return rule


def create_optimizer(
    config: Mapping[str, Any], steps_per_epoch: int, rule: Rule = decay_all
) -> optax.GradientTransformation:
    """SGD with momentum, and decay coupled into the gradient.

    With `accumulate_steps` n, parameters move once in n steps, by the mean of
    their gradients, and the learning rate is that of the first of these steps.
    Each step still normalises by the statistics of its own batch.

    Args:
      config: the mapping of `create_schedule`, with `momentum`, `nesterov`,
        `weight_decay`, `accumulate_steps` (1 if absent) and what else `rule` reads.
      steps_per_epoch: training steps in one epoch, whether parameters move in
        them or not.
      rule: what decays, and which parameters have a learning rate of their own.

    Returns:
      The gradient transformation.
    """
    every = config.get("accumulate_steps") or 1
    schedule = create_schedule(config, steps_per_epoch)
    sgd = optax.sgd(
        lambda updates: schedule(updates * every),
        config["momentum"],
        config["nesterov"],
    )
    tx = rule(config, sgd)
    if every == 1:
        return tx
    return optax.MultiSteps(tx, every).gradient_transformation()
