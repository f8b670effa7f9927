"""Bridge student: member 0 and a small network that moves its logits to the mean's."""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from edp import losses
from edp.students import forward
from edp.students.score_network import ScoreNetwork
from edp.students.source import COLLECTION, Source, begin, create_source
from edp.students.student import Student

# The temperature of member 0 is 2 + 0.4 Beta(1, 5).
_LEAST_TEMPERATURE, _SPREAD, _BETA = 2.0, 0.4, 5
MEAN_TEMPERATURE = _LEAST_TEMPERATURE + _SPREAD / (1 + _BETA)
# Collection of the parameters whose N steps are distilled into one.
_SAMPLER = "sampler"


def bridge(
    build_model: Callable,
    *,
    training_steps: int,
    bridge_steps: int,
    bridge_one_step_share: float,
    bridge_betas: tuple[float, float],
    bridge_width: int,
    seed: int = 0,
    source: Source | None = None,
) -> Student:
    """Creates a frozen member 0 with a diffusion bridge to the members' mean.

    (DBN; Kim, Yoon, Lee, *Fast Ensembling with Diffusion Schrödinger Bridge*, ICLR
    2024, arXiv 2404.15814.) The bridge leads from l₁ = z/T, the tempered logits of
    member 0, to l₀ = log mean_m softmax(z_m). Its score network ε reads a point between
    them, the features of member 0 and the time τ = n/N. There is no label term and only
    the perturbed input is used.

    In the last `bridge_one_step_share` of the training, the network learns to reach in
    one step the ends of N steps with its parameters from before; predictions then take
    one step.

    `bridge_steps=1` is the deterministic control: the same network, at the cost of one
    step, learns l₁ − l₀ by regression.

    Args:
      build_model: builds a plain network, of which member 0 is one if `source` is None.
      training_steps: number of training steps.
      bridge_steps: N.
      bridge_one_step_share: share of the training in which N steps are distilled into
        one; 0: predictions take N steps.
      bridge_betas: β₁ and β₂ of the noise; see `variance`.
      bridge_width: features of a block of the score network.
      seed: of the noise in predictions of several steps, the same for all inputs.
      source: member 0.
    """
    source = source or create_source(build_model())
    network = ScoreNetwork(bridge_width)
    switch = training_steps - math.ceil(bridge_one_step_share * training_steps)
    distils = bridge_steps > 1 and bridge_one_step_share > 0
    times = np.arange(bridge_steps + 1, dtype=np.float32) / bridge_steps
    variances = variance(times, bridge_betas)
    scale = float(np.sqrt(variances[-1]))  # σ₁

    def init(key, x):
        source_key, network_key = jax.random.split(key)
        frozen = source.init(source_key, x)
        features, logits = source.features(frozen, x)
        own = network.init(network_key, logits[None], features, jnp.ones(1))["params"]
        sampler = {_SAMPLER: own} if distils else {}
        return {"params": own, COLLECTION: frozen, **sampler}

    def eps(params, x, features, time):
        outputs = network.apply({"params": params}, x[None], features, time)
        return outputs[0] / scale  # of order 1/σ₁, as the noise is small

    def all_steps(params, start, features, noise):
        def eps_at(x, n):
            return eps(params, x, features, jnp.full(1, times[n]))

        return sample_bridge(eps_at, start, variances, noise)

    def one_step(params, start, features):
        return start - scale * eps(params, start, features, jnp.ones(1))

    def bridge_loss(params, start, features, teacher_logits, key):
        step_key, noise_key = jax.random.split(key)
        n = jax.random.randint(step_key, len(start), 1, bridge_steps + 1)
        at_n = jnp.asarray(variances)[n][:, None]
        target = mean_logits(teacher_logits)
        mean, spread = between(target, start, at_n, variances[-1])
        x = mean + jnp.sqrt(spread) * jax.random.normal(noise_key, mean.shape)
        sigma = jnp.sqrt(at_n)
        found = eps(params, x, features, jnp.asarray(times)[n])
        # ‖ε − (x − l₀)/σ_τ‖², in units of 1/σ²₁.
        total = jnp.square(scale * (found - (x - target) / sigma)).sum(axis=-1)
        return total, x - sigma * found

    def one_step_loss(params, sampler, start, features, key):
        noise = jax.random.normal(key, (bridge_steps - 1, *start.shape))
        target = jax.lax.stop_gradient(all_steps(sampler, start, features, noise))
        end = one_step(params, start, features)
        return jnp.square(end - target).sum(axis=-1), end

    def loss(variables, batch, key):
        image = batch.image if batch.perturbed is None else batch.perturbed
        temperature_key, key = jax.random.split(key)
        features, logits = source.features(variables[COLLECTION], image)
        start = logits / draw_temperature(temperature_key)
        params, state = variables["params"], forward.model_state(variables)
        if distils:
            sampler = jax.tree.map(
                lambda new, old: jnp.where(batch.step <= switch, new, old),
                jax.lax.stop_gradient(params),
                variables[_SAMPLER],
            )
            state = {**state, _SAMPLER: sampler}
            total, end = jax.lax.cond(
                batch.step < switch,
                lambda: bridge_loss(params, start, features, batch.teacher_logits, key),
                lambda: one_step_loss(params, sampler, start, features, key),
            )
        else:
            total, end = bridge_loss(params, start, features, batch.teacher_logits, key)
        return total, (state, {"accuracy": forward.accuracy(end, batch.label)})

    def finalise(variables):
        return {name: tree for name, tree in variables.items() if name != _SAMPLER}

    def predicted_logits(variables, x):
        features, logits = source.features(variables[COLLECTION], x)
        start, params = logits / MEAN_TEMPERATURE, variables["params"]
        if distils:
            return one_step(params, start, features)[None]
        # NumPy's, so that the noise is a constant of the exported program.
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((bridge_steps - 1, 1, start.shape[-1]))
        noise = jnp.asarray(noise, start.dtype)
        return all_steps(params, start, features, noise)[None]

    predict, uncertainty = forward.predictors_from_logits(predicted_logits)
    return Student(
        num_members=1,
        inference_cost=None,
        init=init,
        loss=loss,
        finalise=finalise,
        predict=predict,
        uncertainty=uncertainty,
        begin=begin,
    )


def variance(time: np.ndarray, betas: tuple[float, float]) -> np.ndarray:
    """Computes σ²_τ = ½ (β₁ − β₂) τ² + β₂ τ, the variance of the noise from 0 to τ."""
    first, second = betas
    return (0.5 * (first - second) * time**2 + second * time).astype(np.float32)


def between(
    end: jax.Array, start: jax.Array, variance: jax.Array, total: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes the mean and the variance of the bridge at time τ.

    w l₀ + (1 − w) l₁ and w σ²_τ, with w = (σ²₁ − σ²_τ) / σ²₁.

    Args:
      end: l₀, at τ = 0.
      start: l₁, at τ = 1.
      variance: σ²_τ.
      total: σ²₁.
    """
    weight = (total - variance) / total
    return weight * end + (1 - weight) * start, weight * variance


def sample_bridge(
    eps: Callable[[jax.Array, int], jax.Array],
    start: jax.Array,
    variances: np.ndarray,
    noise: jax.Array,
) -> jax.Array:
    """Follows the bridge from l₁ in N steps, n = N, ..., 1.

    With x̂₀ = x − σ_n ε and a = (σ²_n − σ²_{n−1}) / σ²_n, x becomes a x̂₀ + (1 − a) x
    plus noise of variance a σ²_{n−1}, which is 0 for n = 1.

    Args:
      eps: (x [B, K], n) -> ε [B, K].
      start: l₁ [B, K].
      variances: σ²_n for n = 0, ..., N; the first is 0.
      noise: standard normal, [N − 1, B or 1, K]; that of step n is at n − 2.

    Returns:
      l₀ [B, K].
    """
    chex.assert_shape(noise, (len(variances) - 2, None, start.shape[-1]))
    x = start
    for n in reversed(range(1, len(variances))):
        a = float((variances[n] - variances[n - 1]) / variances[n])
        end = x - float(np.sqrt(variances[n])) * eps(x, n)
        x = a * end + (1 - a) * x
        if n > 1:
            x = x + float(np.sqrt(a * variances[n - 1])) * noise[n - 2]
    return x


def mean_logits(teacher_logits: jax.Array) -> jax.Array:
    """Computes l₀ = log mean_m softmax(z_m), less its mean over the classes.

    Args:
      teacher_logits: [M, B, K].

    Returns:
      [B, K].
    """
    logits = losses.mean_log_probs(teacher_logits, 1.0)
    return logits - logits.mean(axis=-1, keepdims=True)


def draw_temperature(key: jax.Array) -> jax.Array:
    """Draws T = 2 + 0.4 Beta(1, 5) by inversion, a number for the whole batch."""
    uniform = jax.random.uniform(key)
    return _LEAST_TEMPERATURE + _SPREAD * (1 - uniform ** (1 / _BETA))
