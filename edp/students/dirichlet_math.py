"""Dirichlet distributions over class probabilities: losses and uncertainties.

The concentrations α [..., K] come as log α. With ᾱ = α/α0, α0 their sum, the terms
of Γ and ψ that grow with α and cancel are cancelled by hand, by Stirling's series,
so that float32 serves however large α is:

  lnΓ(x) = (x − ½) ln x − x + ½ ln 2π + μ(x),   ψ(x) = ln x − δ(x)
"""

import math

import jax
import jax.numpy as jnp

# Of ln α: no smaller, where its gradient is 0, so that α and 1/α are float32 numbers.
_LEAST = -80.0
# Of ln α0: no larger; log-concentrations of more are all lowered alike, so that the
# mean stays as it is, and the gradient of what they are lowered by is 0.
_MOST = 20.0
# Where the series, of four terms, take over from the functions.
_LARGE = 10.0


def bounded(log_alpha: jax.Array) -> jax.Array:
    """Log-concentrations of any size as the functions here take them.

    ln α0 is at most 20 and ln α_k at least −80; what is within is left as it is.
    """
    log_alpha = log_alpha.astype(jnp.promote_types(log_alpha.dtype, jnp.float32))
    total = jax.nn.logsumexp(log_alpha, axis=-1, keepdims=True)
    return jnp.maximum(log_alpha - jax.nn.relu(total - _MOST), _LEAST)


def log_density(log_alpha: jax.Array, log_p: jax.Array) -> jax.Array:
    """log Dir(p | α).

    Equal to −α0 KL(ᾱ ‖ p) + ½ (Σ_k ln α_k − ln α0 − (K − 1) ln 2π) + μ(α0)
    − Σ_k μ(α_k) − Σ_k ln p_k.

    Args:
      log_alpha: [..., K], `bounded`.
      log_p: log-probabilities [..., K], all finite.

    Returns:
      [...].
    """
    log_total, log_mean = _split(log_alpha)
    kl = (jnp.exp(log_mean) * (log_mean - log_p)).sum(axis=-1)
    constant = 0.5 * (log_alpha.shape[-1] - 1) * math.log(2 * math.pi)
    rest = _remainders(log_alpha) - constant - log_p.sum(axis=-1)
    return rest - jnp.exp(log_total) * kl


def kl_divergence(log_alpha: jax.Array, log_beta: jax.Array) -> jax.Array:
    """KL(Dir(α) ‖ Dir(β)).

    Equal to β0 KL(β̄ ‖ ᾱ) + h(α) − h(β) − Σ_k (α_k − β_k) (δ(α_k) − δ(α0)), where
    h(α) = ½ (Σ_k ln α_k − ln α0) + μ(α0) − Σ_k μ(α_k).

    Args:
      log_alpha: [..., K], `bounded`. α_k below e⁻⁸⁰ β_k, of which float32 does not
        hold the divergence, count as that.
      log_beta: [..., K], `bounded`.

    Returns:
      [...].
    """
    log_alpha = jnp.maximum(log_alpha, log_beta + _LEAST)
    log_total, log_mean = _split(log_alpha)
    target_log_total, target_log_mean = _split(log_beta)
    target_mean = jnp.exp(target_log_mean)
    kl = (target_mean * (target_log_mean - log_mean)).sum(axis=-1)
    difference = jnp.exp(log_alpha) - jnp.exp(log_beta)
    deltas = _delta(log_alpha) - _delta(log_total)[..., None]
    return (
        jnp.exp(target_log_total) * kl
        + _remainders(log_alpha)
        - _remainders(log_beta)
        - (difference * deltas).sum(axis=-1)
    )


def negative_log_likelihood(
    logits: jax.Array,
    teacher_logits: jax.Array,
    temperature: float | jax.Array,
    smoothing: float = 1e-4,
) -> jax.Array:
    """−⟨log Dir(p_m | α)⟩_m with α = exp(z / T) (Malinin et al., 2020, eq. 9).

    Args:
      logits: z of the student [B, K].
      teacher_logits: of the members [M, B, K]; p_m are their probabilities at the
        same temperature, moved by `smoothing` of the way to 1/K.
      temperature: T, annealed to 1 during training.
      smoothing: keeps log p_m finite.

    Returns:
      [B].
    """
    wide = jnp.promote_types(logits.dtype, jnp.float32)
    log_alpha = bounded(logits.astype(wide) / temperature)
    p = jax.nn.softmax(teacher_logits.astype(log_alpha.dtype) / temperature, axis=-1)
    p = (1 - smoothing) * p + smoothing / p.shape[-1]
    return -log_density(log_alpha, jnp.log(p)).mean(axis=0)


def proxy_target(teacher_logits: jax.Array, epsilon: float = 1e-4) -> jax.Array:
    """Log-concentrations [B, K] of the proxy target of members' logits [M, B, K].

    β = 1 + p̄ β0' with β0' = (K − 1) / (2 ⟨KL(p̄ ‖ p_m)⟩_m + ε), p̄ the members' mean
    (Ryabinin et al., 2021, section 3; by Stirling's approximation β0' is the most
    likely total).
    """
    wide = jnp.promote_types(teacher_logits.dtype, jnp.float32)
    members = jax.nn.log_softmax(teacher_logits.astype(wide), axis=-1)
    mean = jnp.exp(members).mean(axis=0)
    log_mean = jnp.log(jnp.maximum(mean, jnp.finfo(wide).tiny))
    divergence = jnp.maximum((mean * (log_mean - members)).sum(axis=-1).mean(axis=0), 0)
    total = (mean.shape[-1] - 1) / (2 * divergence + epsilon)
    return jnp.log1p(mean * total[..., None])


def proxy_loss(logits: jax.Array, teacher_logits: jax.Array) -> jax.Array:
    """KL(Dir(α) ‖ Dir(β)) / Σ_k β_k with α = 1 + exp(z), β the `proxy_target`.

    (Ryabinin, Malinin, Gales, *Scaling Ensemble Distribution Distillation to Many
    Classes with Proxy Targets*, 2021.) The published code weights the two parts of
    this divergence differently, the entropy's by 1/(β0' + K) and the other by 1; here
    both are divided by Σ β = β0' + K, so that α = β is the minimum.

    Args:
      logits: z of the student [B, K].
      teacher_logits: of the members [M, B, K].

    Returns:
      [B].
    """
    log_beta = proxy_target(teacher_logits)
    divergence = kl_divergence(one_more(logits), log_beta)
    return divergence / jnp.exp(log_beta).sum(axis=-1)


def one_more(logits: jax.Array) -> jax.Array:
    """ln (1 + exp(z)) of `bounded` z: concentrations that are never below 1."""
    return jax.nn.softplus(bounded(logits))


def mean_probs(log_alpha: jax.Array) -> jax.Array:
    """The mean ᾱ [..., K] of Dir(α)."""
    return jax.nn.softmax(log_alpha, axis=-1)


def uncertainties(log_alpha: jax.Array) -> dict[str, jax.Array]:
    """How unsure Dir(α) is, in nats (Malinin et al., 2020, appendix).

    Args:
      log_alpha: [..., K], `bounded`.

    Returns:
      {name: [...]}, higher = less certain: `max_probability`, 1 − max_k ᾱ_k;
      `predictive_entropy`, H(ᾱ), the total; `expected_entropy`, E[H(p)], of the data;
      `mutual_information`, their difference, of the knowledge; `pairwise_kl`,
      E[KL(p ‖ p')] = (K − 1) / α0, p and p' drawn independently.
    """
    log_total, log_mean = _split(log_alpha)
    mean = jnp.exp(log_mean)
    entropy = -(mean * log_mean).sum(axis=-1)

    information = (mean * _excess(log_alpha)).sum(axis=-1) - _excess(log_total)
    information = jnp.clip(information, 0, entropy)  # not beyond by rounding
    return {
        "max_probability": 1 - mean.max(axis=-1),
        "predictive_entropy": entropy,
        "expected_entropy": entropy - information,
        "mutual_information": information,
        "pairwise_kl": (log_alpha.shape[-1] - 1) * jnp.exp(-log_total),
    }


def _split(log_alpha):
    log_total = jax.nn.logsumexp(log_alpha, axis=-1)
    return log_total, log_alpha - log_total[..., None]


def _remainders(log_alpha):
    """h(α) of `kl_divergence`."""
    log_total = jax.nn.logsumexp(log_alpha, axis=-1)
    of_total = 0.5 * log_total - _mu(log_total)
    return (0.5 * log_alpha - _mu(log_alpha)).sum(axis=-1) - of_total


def _mu(log_x):
    """μ(x) of ln x: 1/(12 x) − 1/(360 x³) + ... for large x."""
    y = jnp.exp(-jnp.maximum(log_x, math.log(_LARGE)))
    series = y * (1 / 12 - y**2 * (1 / 360 - y**2 * (1 / 1260 - y**2 / 1680)))
    log_small = jnp.minimum(log_x, math.log(_LARGE))
    x = jnp.exp(log_small)
    stirling = (x - 0.5) * log_small - x + 0.5 * math.log(2 * math.pi)
    small = jax.lax.lgamma(x) - stirling
    return jnp.where(log_x > math.log(_LARGE), series, small)


def _excess(log_x):
    """ψ(x + 1) − ln x = 1/x − δ(x) of ln x: 1/(2 x) − 1/(12 x²) + ... for large x."""
    large = jnp.maximum(log_x, math.log(_LARGE))
    log_small = jnp.minimum(log_x, math.log(_LARGE))
    small = jax.lax.digamma(jnp.exp(log_small) + 1) - log_small
    return jnp.where(log_x > math.log(_LARGE), jnp.exp(-large) - _delta(large), small)


def _delta(log_x):
    """δ(x) of ln x: 1/(2 x) + 1/(12 x²) − 1/(120 x⁴) + ... for large x."""
    y = jnp.exp(-jnp.maximum(log_x, math.log(_LARGE)))
    series = y * (0.5 + y * (1 / 12 - y**2 * (1 / 120 - y**2 / 252)))
    log_small = jnp.minimum(log_x, math.log(_LARGE))
    small = log_small - jax.lax.digamma(jnp.exp(log_small))
    return jnp.where(log_x > math.log(_LARGE), series, small)
