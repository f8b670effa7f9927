"""Batch normalisation with a memory-efficient gradient.

Automatic differentiation would keep the centred and the normalised input as
residuals, besides the input itself. This gradient keeps only the input, which is in
memory anyway as the output of the layer below, and two numbers per channel.
"""

import functools

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from edp.models import native


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015) as every model uses it.

    One for all members of a BatchEnsemble: its statistics are over the folded
    rows. They are float32 whatever the input is, and move a tenth of the way to
    those of each batch. Called on [N, ..., C]; returns the same shape and dtype.

    Attributes:
        use_running_average: whether to normalise by the statistics kept in
            `batch_stats`, or by those of the batch, which then update them.
        groups: None, or G, to normalise each of G equal, consecutive parts of the
            batch by its own moments, as G devices do that do not communicate. The
            kept statistics then move to the mean of the parts' moments, as if those
            devices kept their own and averaged them.
        momentum: what the kept statistics keep of themselves.
        epsilon: added to the variance.
        scale_init: initializer of the scale.
        relu: whether max(·, 0) follows, which costs no pass of its own on a CPU.
        interleaved: None, or M where the channels of M networks alternate
            (`edp.models.interleaved`); variables are then [M, C / M].
    """

    use_running_average: bool
    groups: int | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    relu: bool = False
    interleaved: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        members = self.interleaved
        shape = x.shape[-1:] if members is None else (members, x.shape[-1] // members)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        scale, bias = scale.T.reshape(-1), bias.T.reshape(-1)
        if self.use_running_average:
            inverse = jax.lax.rsqrt(var.value + self.epsilon)
            vectors = mean.value.T.reshape(-1), inverse.T.reshape(-1), scale, bias
            if members is not None:
                # Or XLA would transpose them again at each element of x.
                vectors = jax.lax.optimization_barrier(vectors)
            y = _affine(x, *vectors).astype(x.dtype)
            return nn.relu(y) if self.relu else y
        if self.groups is not None:
            y, *moments = normalise_groups(x, scale, bias, self.epsilon, self.groups)
            y = nn.relu(y) if self.relu else y
        elif native.takes_normalisation(x):
            y, *moments = native.normalise(
                x,
                scale.astype(jnp.float32),
                bias.astype(jnp.float32),
                self.epsilon,
                self.relu,
            )
        else:
            y, *moments = normalise(x, scale, bias, self.epsilon)
            y = nn.relu(y) if self.relu else y
        if not self.is_initializing():
            for kept, new in zip((mean, var), moments, strict=True):
                new = new.reshape(shape[::-1]).T
                kept.value = self.momentum * kept.value + (1 - self.momentum) * new
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float):
    """Normalises by the moments of the batch, per channel.

    Args:
        x: [..., C].
        scale: float32 [C].
        bias: float32 [C].
        epsilon: added to the variance.

    Returns:
        scale · (x − mean) / √(var + epsilon) + bias, in x's dtype; and the mean and
        the (population) variance, float32 [C], which are constants to gradients.
    """
    return _normalise_fwd(x, scale, bias, epsilon)[0]


def normalise_groups(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, groups: int
):
    """`normalise` of each of G equal parts of x [N, ..., C]; the parts' mean moments.

    The rows of a part are consecutive, N / G of them.
    """
    chex.assert_is_divisible(x.shape[0], groups)
    parts = x.reshape(groups, -1, *x.shape[1:])
    y, mean, var = jax.vmap(lambda part: normalise(part, scale, bias, epsilon))(parts)
    return y.reshape(x.shape), mean.mean(axis=0), var.mean(axis=0)


def _affine(x, mean, inverse, scale, bias):
    mean, factor, bias = _per_channel(x, mean, inverse * scale, bias)
    return (x - mean) * factor + bias


def _per_channel(x, *vectors):
    """Reshapes vectors [C] to broadcast with x [..., C]."""
    return [jnp.expand_dims(vector, range(x.ndim - 1)) for vector in vectors]


def _normalise_fwd(x, scale, bias, epsilon):
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.float32)
    mean = wide.mean(axes)
    # Both moments in one pass; not below 0 by rounding.
    var = jnp.maximum(jnp.square(wide).mean(axes) - jnp.square(mean), 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = _affine(wide, mean, inverse, scale, bias).astype(x.dtype)
    return (y, mean, var), (x, mean, inverse, scale)


def _normalise_bwd(epsilon, residuals, cotangents):
    """With x̂ = (x − mean)·inverse: scale·inverse·(g − ⟨g⟩ − x̂⟨g x̂⟩)."""
    del epsilon
    x, mean, inverse, scale = residuals
    axes = tuple(range(x.ndim - 1))
    size = x.size // x.shape[-1]
    (mean,) = _per_channel(x, mean)
    g, offset = cotangents[0].astype(jnp.float32), x.astype(jnp.float32) - mean
    bias_gradient = g.sum(axes)
    scale_gradient = (g * offset).sum(axes) * inverse
    slope = inverse * scale_gradient / size
    factor, shift, slope = _per_channel(x, inverse * scale, bias_gradient / size, slope)
    gradient = factor * (g - shift - offset * slope)
    return gradient.astype(x.dtype), scale_gradient, bias_gradient


normalise.defvjp(_normalise_fwd, _normalise_bwd)
