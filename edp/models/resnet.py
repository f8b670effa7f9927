"""Residual network for CIFAR-sized images."""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from edp.errors import InputError
from edp.models.classifier import Classifier, check_positive


def identity_shortcut(x: jax.Array, features: int, strides: int) -> jax.Array:
    """Computes the shortcut without parameters: option A of He et al. 2016, §4.1.

    Args:
      x: [N, H, W, C].
      features: channels of the result, at least C.
      strides: subsampling factor along H and W.

    Returns:
      [N, ⌈H / strides⌉, ⌈W / strides⌉, features], with zeros in the added channels.
    """
    # Indexing would export as gathers.
    x = jax.lax.slice(x, (0,) * 4, x.shape, (1, strides, strides, 1))
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity shortcut, ReLU after the sum.

    Attributes:
      conv: creates a `Conv`.
      norm: creates a `BatchNorm`.
      drop: creates a `Dropout`.
      features: output channels.
      strides: stride of the first convolution and the shortcut.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    drop: Callable[..., nn.Module]
    features: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.features, strides=self.strides, name="conv1")(x)
        y = self.norm(relu=True, name="norm1")(y)
        y = self.drop(name="dropout")(y)
        y = self.conv(self.features, name="conv2")(y)
        y = self.norm(name="norm2")(y)
        return nn.relu(identity_shortcut(x, y.shape[-1], self.strides) + y)


class ResNet(Classifier):
    """ResNet-n of He et al., *Deep Residual Learning*, CVPR 2016, §4.2.

    Attributes:
      depth: 6n+2, with n blocks in each of three stages.
      width: channels of the first stage; the other stages have two and four times as
        many.
      stem_strides: stride of the first convolution; 2 computes all stages at half the
        resolution, for a quarter of the operations.
      remat: whether gradients recompute the activations of each block: less memory,
        about a third more time.
    See `Classifier` for the others.
    """

    depth: int = 32
    width: int = 16
    stem_strides: int = 1
    remat: bool = False

    takes_interleaved: ClassVar[bool] = True

    def __post_init__(self):
        check_positive("depth", self.depth)
        if self.depth < 8 or self.depth % 6 != 2:
            raise InputError(
                f"depth={self.depth} is no depth of a resnet; accepted: 6n+2 with n at "
                "least 1: 8, 14, 20, 32, 44, 56, 110, ..."
            )
        check_positive("width", self.width)
        check_positive("stem_strides", self.stem_strides)
        super().__post_init__()

    def feature_maps(
        self,
        x: jax.Array,
        conv: Callable[..., nn.Module],
        norm: Callable[..., nn.Module],
        drop: Callable[..., nn.Module],
    ) -> jax.Array:
        block_class = nn.remat(BasicBlock) if self.remat else BasicBlock
        strides = self.stem_strides
        x = conv(self.channels(self.width), strides=strides, name="stem_conv")(x)
        x = norm(relu=True, name="stem_norm")(x)
        for stage in range(3):
            for block in range((self.depth - 2) // 6):
                x = block_class(
                    conv,
                    norm,
                    drop,
                    features=self.channels(self.width * 2**stage),
                    strides=2 if stage > 0 and block == 0 else 1,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x)
        return x
