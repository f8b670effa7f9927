"""Small convolutional network for images of a few pixels."""

from collections.abc import Callable
from typing import ClassVar

import jax
from flax import linen as nn

from edp.models.classifier import Classifier, check_positive


class ConvNet(Classifier):
    """Three 3x3 convolutions, each with batch normalisation and ReLU.

    The second halves the image and doubles the channels.

    Attributes:
      width: channels of the first convolution.
    See `Classifier` for the others.
    """

    width: int = 16

    takes_interleaved: ClassVar[bool] = True

    def __post_init__(self):
        check_positive("width", self.width)
        super().__post_init__()

    def feature_maps(
        self,
        x: jax.Array,
        conv: Callable[..., nn.Module],
        norm: Callable[..., nn.Module],
        drop: Callable[..., nn.Module],
    ) -> jax.Array:
        del drop  # dropout only before the last layer
        for i, (scale, strides) in enumerate(((1, 1), (2, 2), (2, 1)), start=1):
            x = conv(
                self.channels(scale * self.width), strides=strides, name=f"conv{i}"
            )(x)
            x = norm(relu=True, name=f"norm{i}")(x)
        return x
