"""Learning-rate schedules and the optimizer of teachers and students."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from edp.errors import InputError

Schedule = Callable[[jax.Array], jax.Array]
# (config of `create_optimizer`, SGD) -> SGD chained with transformations such as weight
# decay.
Rule = Callable[
    [Mapping[str, Any], optax.GradientTransformation], optax.GradientTransformation
]


def step_linear(
    peak: float, num_epochs: int, steps_per_epoch: int, milestones: tuple[int, int]
) -> Schedule:
    """Returns the paper's schedule, constant in an epoch (arXiv 2110.14149, app. B).

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
    """Returns a linear warm-up from 0, then a half cosine to 0 at the last step."""
    steps = num_epochs * steps_per_epoch
    warmup = min(round(warmup_epochs * steps_per_epoch), steps - 1)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else peak, peak, warmup, steps
    )


def cyclic(peak: float, num_epochs: int, steps_per_epoch: int, cycles: int) -> Schedule:
    """Returns equal cycles of a half cosine to 0 (arXiv 1704.00109, eq. 2)."""
    steps = num_epochs * steps_per_epoch // cycles
    cycle = optax.cosine_decay_schedule(peak, steps)
    return lambda count: cycle(count % steps)


def constant(peak: float, num_epochs: int, steps_per_epoch: int) -> Schedule:
    """Returns the peak for every step."""
    del num_epochs, steps_per_epoch
    return optax.constant_schedule(peak)


# Name -> (schedule, names of its own settings).
SCHEDULES: dict[str, tuple[Callable[..., Schedule], tuple[str, ...]]] = {
    "step_linear": (step_linear, ("milestones",)),
    "cosine": (cosine, ("warmup_epochs",)),
    "constant": (constant, ()),
    "cyclic": (cyclic, ("cycles",)),
}


def create_schedule(config: Mapping[str, Any], steps_per_epoch: int) -> Schedule:
    """Returns the schedule that `config` names: step count -> learning rate.

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
            f"schedule={name!r} is unknown; accepted: {', '.join(SCHEDULES)}"
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
    """Adds L2 decay, `weight_decay`, of every parameter."""
    return optax.chain(optax.add_decayed_weights(config["weight_decay"]), sgd)


def decay_all_but(factors: Callable[[Any], Any]) -> Rule:
    """Returns the rule of L2 decay of all parameters but the factors.

    Args:
      factors: params -> the same tree of bools, True for factors, which are not
        decayed and whose learning rate is multiplied by `rank_one_lr_factor`.
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
    """Returns SGD with momentum and L2 decay coupled into the gradient.

    With `accumulate_steps` n, parameters are updated once in n steps, with the mean of
    the gradients and the learning rate of the first of these steps. Each step still
    normalises by the statistics of its own batch.

    Args:
      config: the mapping of `create_schedule`, with `momentum`, `nesterov`,
        `weight_decay`, `accumulate_steps` (1 if absent) and what `rule` reads.
      steps_per_epoch: training steps in one epoch, with or without an update.
      rule: adds weight decay and learning rates of single parameters.

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
