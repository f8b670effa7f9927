"""Convolution and dense layers, plain or BatchEnsemble.

A BatchEnsemble layer (Wen, Tran, Ba, *BatchEnsemble*, ICLR 2020, eq. 1) shares
one kernel W between M members; member m uses W_m = W ∘ (r_m s_mᵀ). The factors are
per channel, so conv(x, W_m) = conv(x ∘ r_m, W) ∘ s_m, and one convolution serves
the rows of all members.

Rows are folded batch-major: row b·M + m is image b of member m. Folding a batch that
is sharded over devices then needs no communication.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from edp.errors import InputError
from edp.models import native
from edp.models.cpu_convolution import convolve

# He et al., *Delving Deep into Rectifiers*, ICCV 2015, eq. 10: N(0, 2 / fan-in),
# not truncated; the fan-in is kernel height · kernel width · input channels.
kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def _normal_factors(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return 1.0 + 0.5 * jax.random.normal(key, shape, dtype)


FACTOR_INITS: dict[str, nn.initializers.Initializer] = {
    "normal": _normal_factors,
    "sign": jax.random.rademacher,
    "ones": nn.initializers.ones,
}


def factor_initializer(factor_init: str) -> nn.initializers.Initializer:
    """Returns the initializer of the rank-one factors r and s.

    Args:
      factor_init: 'normal' (mean 1, standard deviation 0.5), 'sign' (+1 or -1
        with equal probability) or 'ones' (every member is the plain network).

    Returns:
      `initializer(key, shape, dtype)`.

    Raises:
      InputError: `factor_init` is none of these.
    """
    if factor_init not in FACTOR_INITS:
        raise InputError(
            f"factor_init={factor_init!r} is not known; accepted: "
            f"{', '.join(FACTOR_INITS)}"
        )
    return FACTOR_INITS[factor_init]


def _per_row(member_values: jax.Array, x: jax.Array) -> jax.Array:
    """Tiles [M, C] to broadcast with the folded rows x [B*M, ..., C].

    Tiling the few values is cheaper than reshaping x to [B, M, ..., C]: the large
    array keeps its shape, and the gradient is reduced over H and W first.
    """
    num_members = member_values.shape[0]
    chex.assert_is_divisible(x.shape[0], num_members)
    rows = jnp.expand_dims(member_values, range(1, x.ndim - 1))
    return jnp.tile(rows, (x.shape[0] // num_members, *[1] * (x.ndim - 1)))


def _per_channel(values: jax.Array, x: jax.Array) -> jax.Array:
    """Reshapes [C] to broadcast with x [..., C]."""
    return jnp.expand_dims(values, range(x.ndim - 1))


class _Layer(nn.Module):
    """Base of `Conv` and `Dense`: their parameters, with the rank-one factors.

    Attributes:
      features: number of output channels.
      use_bias: whether a bias is added.
      num_members: None for the plain layer, with parameters `kernel` and `bias`
        [features]; M for the BatchEnsemble layer, which also has `r` [M, C] and
        `s` [M, features], and a `bias` [M, features].
      factor_init: see `factor_initializer`; ignored by a plain layer.
      shared_bias: whether the members share one `bias` [features].
      dtype: dtype of the computation. Parameters are float32.
    """

    features: int
    use_bias: bool = False
    num_members: int | None = None
    factor_init: str = "normal"
    shared_bias: bool = False
    dtype: Any = jnp.float32

    def _transform(
        self,
        x: jax.Array,
        kernel_shape: tuple[int, ...],
        product: Callable[[jax.Array, jax.Array], jax.Array],
        member_product: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    ) -> jax.Array:
        """Computes product(x, W) + bias, or product(x ∘ r, W) ∘ s + bias.

        If `member_product` is given, the latter is member_product(x, [W_1, ..., W_M]).
        """

        def parameter(name, init, shape):
            return self.param(name, init, shape, jnp.float32).astype(self.dtype)

        x = x.astype(self.dtype)
        kernel = parameter("kernel", kernel_init, kernel_shape)
        members = () if self.num_members is None else (self.num_members,)
        if members:
            init = factor_initializer(self.factor_init)
            r = parameter("r", init, (*members, x.shape[-1]))
            s = parameter("s", init, (*members, self.features))
            if member_product is None:
                y = product(x * _per_row(r, x), kernel)
                y = y * _per_row(s, y)
            else:
                factors = r[:, :, None] * s[:, None, :]
                y = member_product(x, kernel[None] * factors[:, None, None])
        else:
            y = product(x, kernel)
        if self.use_bias:
            axes = () if self.shared_bias else members
            bias = parameter("bias", nn.initializers.zeros, (*axes, self.features))
            rows = _per_row(bias, y) if axes else _per_channel(bias, y)
            y = y + rows
        return y


class Conv(_Layer):
    """2-D convolution with a square kernel and the padding of `convolve`.

    Called on [N, H, W, C]; returns [N, H', W', features].

    Attributes:
      kernel_size: height and width of the kernel, of shape
        [kernel_size, kernel_size, C, features].
      strides: stride along both H and W.
    See `_Layer` for the others.
    """

    kernel_size: int = 3
    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        chex.assert_rank(x, 4)
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        # With kernels of the members' own, the factors cost no pass over x and y.
        like = jax.ShapeDtypeStruct(x.shape, self.dtype)
        has_kernels = native.takes_convolution(like, shape, self.strides)
        return self._transform(
            x,
            shape,
            lambda x, kernel: convolve(x, kernel, self.strides),
            functools.partial(native.convolve, strides=self.strides)
            if has_kernels
            else None,
        )


class Dense(_Layer):
    """Dense layer with a bias and a kernel of shape [C, features].

    Called on [N, C]; returns [N, features]. See `_Layer` for the attributes.
    """

    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        chex.assert_rank(x, 2)
        return self._transform(x, (x.shape[-1], self.features), jnp.matmul)


def rank_one_mask(params: chex.ArrayTree) -> chex.ArrayTree:
    """Marks the rank-one factors among the parameters.

    Args:
      params: the parameters of a model, any pytree of nested mappings.

    Returns:
      The same structure with True at the leaves named `r` and `s`, False elsewhere.
      In a plain network all are False.
    """

    def is_factor(path, _):
        return path[-1].key in ("r", "s")

    return jax.tree_util.tree_map_with_path(is_factor, params)


def average_factors(params: chex.ArrayTree) -> chex.ArrayTree:
    """Computes the plain network W ∘ (r̄ s̄ᵀ), with r̄ and s̄ the mean factors.

    Args:
      params: the parameters of a BatchEnsemble whose members share their biases.

    Returns:
      The parameters of the plain network.
    """
    if not isinstance(params, Mapping):
        return params
    if "r" not in params:
        return {name: average_factors(child) for name, child in params.items()}
    r, s = params["r"].mean(axis=0), params["s"].mean(axis=0)
    plain = {name: x for name, x in params.items() if name not in ("r", "s")}
    kernel = params["kernel"]
    factors = jnp.expand_dims(jnp.outer(r, s), range(kernel.ndim - 2))
    return {**plain, "kernel": kernel * factors}
