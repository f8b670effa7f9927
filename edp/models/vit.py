"""Vision transformer for small images."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from edp.errors import InputError
from edp.models.classifier import Classifier, check_positive


def split_patches(x: jax.Array, patch_size: int) -> jax.Array:
    """Splits images into square patches.

    Args:
      x: [N, H, W, C]; `patch_size` divides H and W.
      patch_size: p, the side of a patch in pixels.

    Returns:
      [N, T, p * p * C] with T = H / p * W / p patches, row by row.
    """
    n, height, width, channels = x.shape
    p = patch_size
    x = x.reshape(n, height // p, p, width // p, p, channels)
    return jnp.swapaxes(x, 2, 3).reshape(n, -1, p * p * channels)


class Block(nn.Module):
    """Self-attention and an MLP, each after layer normalisation and with a shortcut.

    Called on tokens [N, T, 1, width]. Its dense layers are 1x1 convolutions with
    biases.

    Attributes:
      conv: creates a `Conv`.
      drop: creates a `Dropout`.
      width: features of a token.
      heads: attention heads; divides `width`.
      mlp_ratio: hidden features of the MLP, in multiples of `width`.
    """

    conv: Callable[..., nn.Module]
    drop: Callable[..., nn.Module]
    width: int
    heads: int
    mlp_ratio: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def dense(features, name):
            return self.conv(features, kernel_size=1, use_bias=True, name=name)

        def norm(name):
            return nn.LayerNorm(dtype=x.dtype, name=name)

        y = dense(3 * self.width, "query_key_value")(norm("norm1")(x))
        y = y.reshape(*x.shape[:2], 3, self.heads, self.width // self.heads)
        y = jax.nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2])
        x = x + dense(self.width, "projection")(y.reshape(x.shape))
        y = dense(self.mlp_ratio * self.width, "mlp1")(norm("norm2")(x))
        y = self.drop(name="dropout")(nn.gelu(y))
        return x + dense(self.width, "mlp2")(y)


class ViT(Classifier):
    """Vision transformer of Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929), §3.1.

    Blocks normalise first; the class token after the last normalisation is the
    feature. In a BatchEnsemble the dense layers have rank-one factors and biases per
    member, and the members share the class token, the position embeddings and the
    layer normalisation.

    Attributes:
      depth: number of blocks.
      width: features of a token.
      heads: attention heads; divides `width`.
      patch_size: side of a patch in pixels; divides height and width of the images.
      mlp_ratio: hidden features of an MLP, in multiples of `width`.
      remat: whether gradients recompute the activations of each block: less memory,
        about a third more time.
    See `Classifier` for the others.
    """

    depth: int = 6
    width: int = 128
    heads: int = 4
    patch_size: int = 4
    mlp_ratio: int = 2
    remat: bool = False

    def __post_init__(self):
        for name in ("depth", "width", "heads", "patch_size", "mlp_ratio"):
            check_positive(name, getattr(self, name))
        if self.width % self.heads:
            raise InputError(
                f"heads={self.heads} does not divide width={self.width}; accepted: a "
                "divisor"
            )
        super().__post_init__()

    def feature_maps(
        self,
        x: jax.Array,
        conv: Callable[..., nn.Module],
        norm: Callable[..., nn.Module],
        drop: Callable[..., nn.Module],
    ) -> jax.Array:
        del norm  # layer normalisation instead
        chex.assert_rank(x, 4)
        if x.shape[1] % self.patch_size or x.shape[2] % self.patch_size:
            raise InputError(
                f"patch_size={self.patch_size} does not divide images of "
                f"{x.shape[1]}x{x.shape[2]} pixels; accepted: a common divisor"
            )
        # Each head keeps a whole number of features.
        width = self.heads * self.channels(self.width // self.heads)
        x = split_patches(x, self.patch_size)[:, :, None]
        x = conv(width, kernel_size=1, use_bias=True, name="patches")(x)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, 1, width))
        token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, 1, width))
        x = jnp.concatenate([token, x], axis=1)
        positions = self.param(
            "positions", nn.initializers.normal(0.02), (1, *x.shape[1:])
        )
        x = x + positions.astype(x.dtype)
        block_class = nn.remat(Block) if self.remat else Block
        for block in range(self.depth):
            x = block_class(
                conv,
                drop,
                width,
                self.heads,
                self.mlp_ratio,
                name=f"block{block + 1}",
            )(x)
        return nn.LayerNorm(dtype=x.dtype, name="final_norm")(x[:, :1])
