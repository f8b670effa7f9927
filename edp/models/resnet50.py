"""50-layer residual network for ImageNet-sized images."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from edp.models.classifier import Classifier


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut, ReLU after the sum.

    The stride is in the 3x3 convolution. In the paper it is in the first 1x1, which
    ignores three positions in four. Where the shapes differ, the shortcut is a 1x1
    convolution with its own normalisation (option B).

    Attributes:
      conv: creates a `Conv`.
      norm: creates a `BatchNorm`.
      drop: creates a `Dropout`.
      features: channels inside the block; the output has four times as many.
      strides: stride of the 3x3 convolution and the shortcut.
      zero_init_residual: whether the last scale is initialised to 0 instead of 1.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    drop: Callable[..., nn.Module]
    features: int
    strides: int
    zero_init_residual: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.features, kernel_size=1, name="conv1")(x)
        y = self.norm(relu=True, name="norm1")(y)
        y = self.drop(name="dropout")(y)
        y = self.conv(self.features, strides=self.strides, name="conv2")(y)
        y = self.norm(relu=True, name="norm2")(y)
        y = self.conv(4 * self.features, kernel_size=1, name="conv3")(y)
        init = (
            nn.initializers.zeros if self.zero_init_residual else nn.initializers.ones
        )
        y = self.norm(scale_init=init, name="norm3")(y)
        if x.shape != y.shape:
            x = self.conv(
                4 * self.features,
                kernel_size=1,
                strides=self.strides,
                name="shortcut_conv",
            )(x)
            x = self.norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class ResNet50(Classifier):
    """ResNet-50 of He et al., *Deep Residual Learning*, CVPR 2016, table 1.

    Attributes:
      blocks: number of blocks in each stage; (3, 4, 6, 3) for ResNet-50.
      zero_init_residual: whether every block is initialised to its shortcut (Goyal
        et al., *Accurate, Large Minibatch SGD*, 2017, §5.1).
      remat: whether gradients recompute the activations of each block: less memory,
        about a third more time.
    See `Classifier` for the others.
    """

    blocks: Sequence[int] = (3, 4, 6, 3)
    zero_init_residual: bool = False
    remat: bool = False

    def feature_maps(
        self,
        x: jax.Array,
        conv: Callable[..., nn.Module],
        norm: Callable[..., nn.Module],
        drop: Callable[..., nn.Module],
    ) -> jax.Array:
        block_class = nn.remat(BottleneckBlock) if self.remat else BottleneckBlock
        x = conv(self.channels(64), kernel_size=7, strides=2, name="stem_conv")(x)
        x = norm(relu=True, name="stem_norm")(x)
        # The converter to ONNX replaces the function by one that needs keywords and
        # ignores padding in numbers (findings/jax2onnx_padding.sh). After ReLU, zeros
        # do not change a maximum.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="VALID")
        for stage, num_blocks in enumerate(self.blocks):
            for block in range(num_blocks):
                x = block_class(
                    conv,
                    norm,
                    drop,
                    features=self.channels(64 * 2**stage),
                    strides=2 if stage > 0 and block == 0 else 1,
                    zero_init_residual=self.zero_init_residual,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x)
        return x
