"""Wide residual network."""

from collections.abc import Callable
from typing import ClassVar

import jax
from flax import linen as nn

from edp.errors import InputError
from edp.models.classifier import Classifier, check_positive


class PreActivationBlock(nn.Module):
    """Normalisation and ReLU before each of two 3x3 convolutions, then the sum.

    Where the shapes differ, the shortcut is a 1x1 convolution of the raw input of the
    block, before normalisation and ReLU.

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
        y = self.norm(relu=True, name="norm1")(x)
        y = self.conv(self.features, strides=self.strides, name="conv1")(y)
        y = self.norm(relu=True, name="norm2")(y)
        y = self.drop(name="dropout")(y)
        y = self.conv(self.features, name="conv2")(y)
        if x.shape != y.shape:
            x = self.conv(
                self.features, kernel_size=1, strides=self.strides, name="shortcut"
            )(x)
        return x + y


class WideResNet(Classifier):
    """WRN-d-k of Zagoruyko and Komodakis, *Wide Residual Networks*, BMVC 2016.

    The convolutions have no biases.

    Attributes:
      depth: d = 6n+4, with n blocks in each of three stages.
      widen_factor: k; the stages have 16k, 32k and 64k channels.
      remat: whether gradients recompute the activations of each block: less memory,
        about a third more time.
    See `Classifier` for the others.
    """

    depth: int = 28
    widen_factor: int = 10
    remat: bool = False

    takes_interleaved: ClassVar[bool] = True

    def __post_init__(self):
        check_positive("depth", self.depth)
        if self.depth < 10 or self.depth % 6 != 4:
            raise InputError(
                f"depth={self.depth} is no depth of a wide_resnet; accepted: 6n+4 with "
                "n at least 1: 10, 16, 22, 28, 40, ..."
            )
        check_positive("widen_factor", self.widen_factor)
        super().__post_init__()

    def feature_maps(
        self,
        x: jax.Array,
        conv: Callable[..., nn.Module],
        norm: Callable[..., nn.Module],
        drop: Callable[..., nn.Module],
    ) -> jax.Array:
        block_class = nn.remat(PreActivationBlock) if self.remat else PreActivationBlock
        x = conv(self.channels(16), name="stem_conv")(x)
        for stage in range(3):
            for block in range((self.depth - 4) // 6):
                x = block_class(
                    conv,
                    norm,
                    drop,
                    features=self.channels(16 * self.widen_factor * 2**stage),
                    strides=2 if stage > 0 and block == 0 else 1,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x)
        return norm(relu=True, name="final_norm")(x)
