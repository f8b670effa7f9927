"""Learning-rate schedules and optimizers of teachers and students."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from edp.errors import InputError

Schedule = Callable[[jax.Array], jax.Array]
# Weight decay -> the transformations of an optimizer with it, in the order of `chain`.
Optimizer = Callable[[optax.GradientTransformation], list[optax.GradientTransformation]]
# (config of `create_optimizer`, optimizer) -> the optimizer with the weight decay and
# the learning rates of single parameters.
Rule = Callable[[Mapping[str, Any], Optimizer], optax.GradientTransformation]


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


def cosine_then_constant(
    peak: float,
    num_epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float,
    swag_start: int,
    swag_learning_rate: float,
) -> Schedule:
    """Returns `cosine` down to a rate that is constant from an epoch, from 1, on."""
    del num_epochs
    steps = (swag_start - 1) * steps_per_epoch
    warmup = min(round(warmup_epochs * steps_per_epoch), steps - 1)
    start = 0.0 if warmup else peak
    return optax.warmup_cosine_decay_schedule(
        start, peak, warmup, steps, swag_learning_rate
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
    "cosine_then_constant": (
        cosine_then_constant,
        ("warmup_epochs", "swag_start", "swag_learning_rate"),
    ),
    "cyclic": (cyclic, ("cycles",)),
}


def create_schedule(config: Mapping[str, Any], steps_per_epoch: int) -> Schedule:
    """Returns the schedule that `config` names: step count -> learning rate.

    Args:
      config: a mapping with `schedule` (a name in `SCHEDULES`), `learning_rate`,
        `num_epochs`, and the schedule's own settings, such as `warmup_epochs`.
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


def cut_off(config: Mapping[str, Any]) -> str | None:
    """Describes how a training ends before its schedule; None if it does not.

    Also None for a single epoch, as in a trial.

    Args:
      config: the mapping of `create_schedule`.
    """
    name, epochs = config["schedule"], config["num_epochs"]
    if name == "cosine_then_constant":
        epochs = config["swag_start"] - 1
    warmup, end = config.get("warmup_epochs", 0.0), config.get("milestones", (0, 0))[1]
    if name in ("cosine", "cosine_then_constant") and warmup >= epochs > 1:
        return (
            f"warmup_epochs={warmup} leaves none of {epochs} epochs in which the "
            "learning rate would fall"
        )
    if name == "step_linear" and end > epochs > 1:
        return (
            f"milestones={tuple(config['milestones'])} end after num_epochs={epochs}, "
            "before the learning rate has fallen to its last value"
        )
    return None


def sgd(config: Mapping[str, Any], schedule: Schedule) -> Optimizer:
    """Returns SGD with momentum; the decay is added to the gradient (L2 decay)."""
    step = optax.sgd(schedule, config["momentum"], config["nesterov"])
    return lambda decay: [decay, step]


def adamw(config: Mapping[str, Any], schedule: Schedule) -> Optimizer:
    """Returns AdamW with decoupled decay (Loshchilov and Hutter, arXiv 1711.05101).

    β₁ is `momentum`, β₂ is 0.999 and ε is 1e-8. With `nesterov`, NAdamW.
    """
    adam = optax.scale_by_adam(config["momentum"], nesterov=config["nesterov"])
    return lambda decay: [adam, decay, optax.scale_by_learning_rate(schedule)]


OPTIMIZERS: dict[str, Callable[[Mapping[str, Any], Schedule], Optimizer]] = {
    "sgd": sgd,
    "adamw": adamw,
}


def decay_all(
    config: Mapping[str, Any], optimizer: Optimizer
) -> optax.GradientTransformation:
    """Applies `weight_decay` to every parameter."""
    return optax.chain(*optimizer(optax.add_decayed_weights(config["weight_decay"])))


def decay_all_but(factors: Callable[[Any], Any]) -> Rule:
    """Returns the rule that decays all parameters but the factors.

    Args:
      factors: params -> the same tree of bools, True for factors, which are not
        decayed and whose learning rate is multiplied by `rank_one_lr_factor`.
    """

    def decayed(params):
        return jax.tree.map(lambda is_factor: not is_factor, factors(params))

    def rule(config, optimizer):
        decay = optax.add_decayed_weights(config["weight_decay"], mask=decayed)
        scale = optax.scale(config["rank_one_lr_factor"])
        return optax.chain(*optimizer(decay), optax.masked(scale, factors))

    return rule


def create_optimizer(
    config: Mapping[str, Any], steps_per_epoch: int, rule: Rule = decay_all
) -> optax.GradientTransformation:
    """Returns the optimizer that `config` names, with its schedule and weight decay.

    With `accumulate_steps` n, parameters are updated once in n steps, with the mean of
    the gradients and the learning rate of the first of these steps. Each step still
    normalises by the statistics of its own batch. At the end of training, up to n - 1
    steps that are left over update nothing.

    Args:
      config: the mapping of `create_schedule`, with `optimizer` (a name in
        `OPTIMIZERS`; "sgd" if absent), `momentum`, `nesterov`, `weight_decay`,
        `accumulate_steps` (1 if absent) and what `rule` reads.
      steps_per_epoch: training steps in one epoch, with or without an update.
      rule: adds weight decay and learning rates of single parameters.

    Returns:
      The gradient transformation.

    Raises:
      InputError: for an unknown optimizer or schedule.
    """
    name = config.get("optimizer") or "sgd"
    if name not in OPTIMIZERS:
        raise InputError(
            f"optimizer={name!r} is unknown; accepted: {', '.join(OPTIMIZERS)}"
        )
    every = config.get("accumulate_steps") or 1
    schedule = create_schedule(config, steps_per_epoch)
    optimizer = OPTIMIZERS[name](config, lambda updates: schedule(updates * every))
    tx = rule(config, optimizer)
    if every == 1:
        return tx
    return optax.MultiSteps(tx, every).gradient_transformation()
