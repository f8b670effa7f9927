"""Training steps: several in one dispatch, non-finite updates skipped."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from edp.runtime import xla
from edp.runtime.state import Averaged, TrainState

# (state, ...) -> (state, metrics), each metric [] or [M].
Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def all_finite(tree: Any) -> jax.Array:
    """Returns whether all floats of a tree of arrays are finite, a bool []."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(x).all() for x in leaves]).all()


def skip_nonfinite_updates(step_fn: Step) -> Step:
    """Returns a step that keeps the old state if the new one or a metric is not finite.

    Non-finite gradients show in the state that they make. A skipped step still counts,
    so that it is not tried again.

    Args:
      step_fn: (state, ...) -> (state, metrics).

    Returns:
      The step with one more metric, `skipped`, 1 or 0; if 1 the other metrics are 0.
    """

    def step(state: TrainState, *args):
        new, metrics = step_fn(state, *args)
        finite = all_finite((new, metrics))
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        metrics = jax.tree.map(lambda x: jnp.where(finite, x, 0), metrics)
        skipped = 1 - finite.astype(jnp.float32)
        return kept._replace(step=new.step), {**metrics, "skipped": skipped}

    return step


def begin_average(state: TrainState) -> TrainState:
    """Returns the state of `average_variables`; the average begins at the variables."""
    # A copy, as training donates the buffers of both.
    variables = jax.tree.map(jnp.copy, state.variables)
    return state._replace(opt_state=Averaged(state.opt_state, variables))


def average_variables(step_fn: Step, decay: float) -> Step:
    """Returns a step that also averages parameters and statistics exponentially.

    After step t = 1, 2, ... the average is d a + (1 − d) v of the average a and the
    new variables v, with d = min(decay, t / (t + 9)), so that the initial values soon
    lose their weight. (Polyak averaging with decay, as `tf.train
    .ExponentialMovingAverage` with `num_updates`.) Training itself is unchanged.

    Args:
      step_fn: (state, ...) -> (state, metrics).
      decay: in [0, 1).

    Returns:
      The step on states of `begin_average`.
    """

    def step(state: TrainState, *args):
        before = state.opt_state
        new, metrics = step_fn(state._replace(opt_state=before.opt_state), *args)
        d = jnp.minimum(decay, new.step / (new.step + 9))

        def average(a, v):
            if not jnp.issubdtype(v.dtype, jnp.inexact):
                return v
            # Frozen variables stay exactly as they are.
            return jnp.where(a == v, v, d * a + (1 - d) * v).astype(v.dtype)

        averages = jax.tree.map(average, before.variables, new.variables)
        return new._replace(opt_state=Averaged(new.opt_state, averages)), metrics

    return step


def jit_all_finite(
    placed: TrainState, *, runs_briefly: bool = False
) -> Callable[[TrainState], jax.Array]:
    """Returns `all_finite` of a state with these shardings, jitted.

    Args:
      placed: the shardings of the state's arrays.
      runs_briefly: see `xla.compiler_options`.
    """
    return jax.jit(
        all_finite,
        out_shardings=_on_every_process(placed),
        compiler_options=xla.compiler_options(runs_briefly=runs_briefly),
    )


def jit_steps(
    step_fn: Step, placed: TrainState, *, runs_briefly: bool = False
) -> Callable:
    """Returns (state, resources, inputs, n) -> the state n steps on, metrics [n, ...].

    Args:
      step_fn: a step of `fit`.
      placed: the shardings of the state's arrays, before and after every step.
      runs_briefly: see `xla.compiler_options`.
    """

    def step(state, resources, inputs, num_steps):
        def one(state, _):
            place = state.step - inputs.first
            own = jax.tree.map(lambda x: x[place], inputs.steps)
            state, metrics = step_fn(state, resources, own)
            return jax.lax.with_sharding_constraint(state, placed), metrics

        if num_steps == 1:  # without a loop, which slows CPUs down
            state, metrics = one(state, None)
            return state, jax.tree.map(lambda x: x[None], metrics)
        return jax.lax.scan(one, state, length=num_steps)

    return jax.jit(
        step,
        static_argnums=3,
        donate_argnums=0,
        out_shardings=(placed, _on_every_process(placed)),
        compiler_options=xla.compiler_options(runs_briefly=runs_briefly),
    )


def compile_steps(
    step_fn: Step,
    state: TrainState,
    resources: Any,
    inputs: Any,
    num_steps: int,
    *,
    runs_briefly: bool = False,
) -> Callable:
    """Compiles `jit_steps` for one device before there are arrays.

    Args:
      step_fn: a step of `fit`.
      state: the shapes of the state; see `jax.eval_shape`. `resources` and `inputs`
        likewise.
      resources: see `fit`.
      inputs: `StepInputs`.
      num_steps: n of the calls to compile; a call with another n compiles then.
      runs_briefly: see `xla.compiler_options`.

    Returns:
      The function of `jit_steps`.
    """
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = jax.tree.map(lambda _: device, state)
    run_steps = jit_steps(step_fn, placed, runs_briefly=runs_briefly)
    compiled = run_steps.lower(state, resources, inputs, num_steps).compile()

    def run(state, resources, inputs, n):
        if n == num_steps:
            return compiled(state, resources, inputs)
        return run_steps(state, resources, inputs, n)

    return run


def _on_every_process(placed: TrainState) -> jax.sharding.Sharding | None:
    """Returns the sharding of what every process reads: that of the step count."""
    return placed.step if jax.process_count() > 1 else None
