"""Flow student: member 0 and a small network that samples logits of members."""

import itertools
import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from edp.students import forward
from edp.students.score_network import ScoreNetwork
from edp.students.source import COLLECTION, Source, begin, create_source
from edp.students.student import Student

# σ_d, that of the logits, and σ_n, that of the noise.
_SIGMA_LOGITS, _SIGMA_NOISE = 1.0, 4.0
# The density of training times t is proportional to this to the power t.
_BASE = 3.0
# Number of steps of the sampler, each half as long as the one before.
_NUM_STEPS = 7


def flow(
    build_model: Callable,
    *,
    num_members: int,
    flow_width: int,
    flow_samples: int | None,
    seed: int = 0,
    source: Source | None = None,
) -> Student:
    """Creates a frozen member 0 with a flow from noise to the members' logits.

    (EDFM; Park, Nam, Kim, Yoon, Lee, *Ensemble Distribution Distillation via Flow
    Matching*, ICML 2025.) With l the logits of one random member less their mean over
    the classes and z standard normal noise, the network learns the velocity l − 4 z at
    the points t l + (1 − t) 4 z, given the features of member 0. Its samples keep the
    diversity of the members. There is no label term and only the perturbed input is
    used.

    Args:
      build_model: builds a plain network, of which member 0 is one if `source` is None.
      num_members: M of the teachers.
      flow_width: features of a block of the network of velocities.
      flow_samples: samples that make a prediction; None: M.
      seed: of the noise in predictions, the same for all inputs.
      source: member 0.
    """
    source = source or create_source(build_model())
    network = ScoreNetwork(flow_width)
    num_samples = num_members if flow_samples is None else flow_samples

    def init(key, x):
        source_key, network_key = jax.random.split(key)
        frozen = source.init(source_key, x)
        features, logits = source.features(frozen, x)
        own = network.init(network_key, logits[None], features, jnp.ones(1))["params"]
        return {"params": own, COLLECTION: frozen}

    def velocity(params, x, features, time):
        c_in, c_skip, c_out = (c[None, :, None] for c in precondition(time))
        outputs = network.apply({"params": params}, c_in * x, features, time)
        return c_skip * x + c_out * outputs

    def loss(variables, batch, key):
        chex.assert_axis_dimension(batch.teacher_logits, 0, num_members)
        image = batch.image if batch.perturbed is None else batch.perturbed
        member_key, time_key, noise_key = jax.random.split(key, 3)
        features, _ = source.features(variables[COLLECTION], image)
        logits = batch.teacher_logits.astype(jnp.float32)
        logits = logits - logits.mean(axis=-1, keepdims=True)
        member = jax.random.randint(member_key, len(image), 0, num_members)
        target = jnp.take_along_axis(logits, member[None, :, None], axis=0)
        time = draw_times(time_key, len(image))
        start = _SIGMA_NOISE * jax.random.normal(noise_key, target.shape)
        t = time[None, :, None]
        x = t * target + (1 - t) * start
        found = velocity(variables["params"], x, features, time)
        total = jnp.square(found - (target - start)).sum(axis=-1)[0]
        end = x + (1 - t) * found
        accuracy = forward.accuracy(end, batch.label)[0]
        return total, (forward.model_state(variables), {"accuracy": accuracy})

    def logits(variables, x):
        features, source_logits = source.features(variables[COLLECTION], x)
        # NumPy's, so that the noise is a constant of the exported program.
        size, num_classes = source_logits.shape
        noise = np.random.default_rng(seed).standard_normal(
            (num_samples, 1, num_classes), np.float32
        )
        start = jnp.broadcast_to(_SIGMA_NOISE * noise, (num_samples, size, num_classes))

        def velocity_at(x, time):
            return velocity(variables["params"], x, features, jnp.full(1, time))

        return integrate(velocity_at, start)

    predict, uncertainty = forward.predictors_from_logits(logits)
    return Student(
        num_members=num_samples,
        inference_cost=None,
        init=init,
        loss=loss,
        finalise=lambda variables: variables,
        predict=predict,
        uncertainty=uncertainty,
        begin=begin,
    )


def draw_times(key: jax.Array, number: int) -> jax.Array:
    """Draws times t in [0, 1] of density proportional to 3^t, by inversion [number]."""
    uniform = jax.random.uniform(key, (number,))
    return jnp.log1p((_BASE - 1) * uniform) / math.log(_BASE)


def precondition(time: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes c_in, c_skip and c_out of v = c_skip x + c_out F(c_in x, t).

    (After Karras et al., 2022, arXiv 2206.00364, for the velocity.) For l and noise of
    standard deviations σ_d = 1 and σ_n = 4, c_in x has variance 1, c_skip x is the best
    linear prediction of the velocity from x, and c_out is the standard deviation of
    what remains, so that F has variance 1 too.

    Args:
      time: t, [...].
    """
    noise = (1 - time) * _SIGMA_NOISE**2
    variance = (time * _SIGMA_LOGITS) ** 2 + (1 - time) * noise
    deviation = jnp.sqrt(variance)
    skip = (time * _SIGMA_LOGITS**2 - noise) / variance
    return 1 / deviation, skip, _SIGMA_LOGITS * _SIGMA_NOISE / deviation


def integrate(
    velocity: Callable[[jax.Array, float], jax.Array], start: jax.Array
) -> jax.Array:
    """Integrates dx/dt = v(x, t) from t = 0 to 1 in 13 evaluations of v.

    Six steps of Heun's method, then one of Euler's, which needs no v at t = 1; from t_i
    to t_{i+1}, t_i = (1 − 2^−i) / (1 − 2^−7). Of Gaussian logits the standard deviation
    comes out 4 to 10 % too large.

    Args:
      velocity: (x, t) -> v, of the shape of x.
      start: x at t = 0.
    """
    x = start
    times = [(1 - 0.5**i) / (1 - 0.5**_NUM_STEPS) for i in range(_NUM_STEPS + 1)]
    for time, after in itertools.pairwise(times):
        size, slope = after - time, velocity(x, time)
        if after < 1:
            slope = 0.5 * (slope + velocity(x + size * slope, after))
        x = x + size * slope
    return x
