"""Base class of all models: the layers before and after the feature maps."""

import contextlib
import numbers
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from edp.errors import InputError
from edp.models import interleaved, native
from edp.models.batch_norm import BatchNorm
from edp.models.dropout import Dropout
from edp.models.layers import Conv, Dense, factor_initializer


def fold(x: jax.Array, num_members: int) -> jax.Array:
    """Repeats each image once per member.

    Args:
      x: [B, ...].
      num_members: M.

    Returns:
      [B*M, ...], where row b·M + m is x[b].
    """
    return jnp.repeat(x, num_members, axis=0)


def unfold(rows: jax.Array, num_members: int) -> jax.Array:
    """Separates folded rows [B*M, ...] into [M, B, ...]."""
    chex.assert_is_divisible(rows.shape[0], num_members)
    rows = rows.reshape(-1, num_members, *rows.shape[1:])
    return jnp.swapaxes(rows, 0, 1)


def check_positive(name: str, value: Any) -> None:
    """Raises InputError unless the setting called `name` is a positive integer."""
    if not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(f"{name}={value!r} is not accepted; accepted: integers from 1")


def check_groups(groups: int | None, name: str, batch_size: int) -> None:
    """Raises InputError unless `groups` divides the batch size called `name`."""
    if groups is not None and batch_size % groups:
        raise InputError(
            f"model.batchnorm_groups={groups} does not divide {name}={batch_size}; "
            "accepted: None or a number of equal parts of the batch"
        )


def _several(layer: type[nn.Module], number: int) -> type[nn.Module]:
    """Stacks equally initialised layers, [..., C] -> [number, ..., features]."""
    return nn.vmap(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": False},
        in_axes=None,
        axis_size=number,
    )


class Classifier(nn.Module):
    """An image classifier: normalise, feature maps, mean over positions, dense.

    A model defines `feature_maps`. It builds its layers with the `conv`, `norm` and
    `drop` that it receives, which handle members and precision.

    Attributes:
      num_classes: K.
      mean: per channel, of images in [0, 1].
      std: per channel, of images in [0, 1].
      dtype: dtype of the feature maps. Normalisation, the last layer, the parameters
        and the statistics are float32.
      num_members: None for one network; M for a BatchEnsemble of M.
      factor_init: initialisation of its rank-one factors: 'normal', 'sign' or 'ones'.
      shared_bias: whether its members share their biases as well as their kernels.
      num_heads: None for one last layer; M for M of them, initialised equally, on the
        features of one network.
      extra_channels: number of channels after the image's that are not normalised.
      num_images: number of images concatenated along the channels of an input.
      width_factor: multiplies the channels of every layer but the last; see `channels`.
      batchnorm_groups: None, or G: in training, batch normalisation normalises each
        of G equal, consecutive parts of the images (with all members) separately.
      dropout_rate: fraction of features dropped before the last layer and, in residual
        blocks, before their last 3x3 convolution as in Wide ResNets (arXiv 1605.07146,
        §2.4). See `Dropout` for when it is active.
      interleaved: None, or M: `apply` computes M networks of these settings, whose
        variables are stacked on a leading axis, at once; see `edp.models.interleaved`.

    Raises:
      InputError: on construction, if a setting is out of range.
    """

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: Any = jnp.float32
    num_members: int | None = None
    factor_init: str = "normal"
    shared_bias: bool = False
    num_heads: int | None = None
    extra_channels: int = 0
    num_images: int = 1
    width_factor: float = 1.0
    batchnorm_groups: int | None = None
    dropout_rate: float = 0.0
    interleaved: int | None = None

    # Whether `feature_maps` treats all channels alike, but for `conv` and `norm`.
    takes_interleaved: ClassVar[bool] = False

    def __post_init__(self):
        check_positive("num_classes", self.num_classes)
        if self.num_members is not None:
            check_positive("num_members", self.num_members)
        if self.num_heads is not None:
            check_positive("num_heads", self.num_heads)
            if self.num_members is not None:
                raise InputError(
                    f"num_heads={self.num_heads} is set besides num_members="
                    f"{self.num_members}; accepted: one of them, the other None"
                )
        check_positive("num_images", self.num_images)
        if not self.width_factor > 0:
            raise InputError(
                f"width_factor={self.width_factor} is out of range; accepted: above 0"
            )
        if self.batchnorm_groups is not None:
            check_positive("batchnorm_groups", self.batchnorm_groups)
        if not 0 <= self.dropout_rate < 1:
            raise InputError(
                f"dropout_rate={self.dropout_rate!r} is out of range; accepted: "
                "numbers from 0 to below 1"
            )
        factor_initializer(self.factor_init)
        if len(self.mean) != len(self.std):
            raise InputError(
                f"mean={self.mean} and std={self.std} differ in length; accepted: one "
                "number per channel in each"
            )
        if not all(std > 0 for std in self.std):
            raise InputError(
                f"std={self.std} is out of range; accepted: numbers above 0"
            )
        super().__post_init__()

    def channels(self, number: int) -> int:
        """Multiplies a number of channels by `width_factor`, rounded, at least 1."""
        return max(1, round(self.width_factor * number))

    def feature_maps(
        self,
        x: jax.Array,
        conv: Callable[..., nn.Module],
        norm: Callable[..., nn.Module],
        drop: Callable[..., nn.Module],
    ) -> jax.Array:
        """Computes the features of normalised images, before pooling and the head.

        Args:
          x: [N, H, W, C].
          conv: creates a `Conv` from its features, kernel size, strides and name.
          norm: creates a `BatchNorm` from its name and whether a ReLU follows.
          drop: creates a `Dropout` from its name.

        Returns:
          [N, H', W', features].
        """
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Classifies images.

        Args:
          x: [B, H, W, num_images * C] in [0, 1], and extra channels of any value. All
            members see the same images.
          train: whether batch normalisation uses the statistics of this batch and
            updates the running ones (`mutable=['batch_stats']`), or uses the running
            statistics.

        Returns:
          Logits, float32 [B, K]; [M, B, K] with members, heads or interleaved networks.

        Raises:
          InputError: for integers, which are no pixels in [0, 1]; in training, if
            `batchnorm_groups` does not divide B.
        """
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputError(
                f"x has dtype {x.dtype}; accepted: floating-point images in [0, 1], "
                "such as pixels / 255 in float32"
            )
        mean = (*self.num_images * self.mean, *[0.0] * self.extra_channels)
        std = (*self.num_images * self.std, *[1.0] * self.extra_channels)
        mean, std = jnp.asarray((mean, std), jnp.float32)[:, None, None, None]
        chex.assert_shape(x, (None, None, None, mean.shape[-1]))
        members: dict[str, Any] = {
            "num_members": self.num_members,
            "factor_init": self.factor_init,
            "shared_bias": self.shared_bias,
        }
        conv: Callable = partial(Conv, dtype=self.dtype, **members)
        head = Dense if self.num_heads is None else _several(Dense, self.num_heads)
        if self.interleaved is not None:
            members = {"num_members": self.interleaved}
            conv, head = partial(interleaved.Conv, **members), interleaved.Dense
        groups = self.batchnorm_groups if train else None
        check_groups(groups, "batch_size", x.shape[0])
        drop = partial(Dropout, self.dropout_rate, train)
        x = ((x - mean) / std).astype(self.dtype)
        if self.num_members is not None:
            x = fold(x, self.num_members)
        # Initial values do not depend on the features, nor wait for the kernels.
        is_initial = self.is_initializing()
        with native.disabled() if is_initial else contextlib.nullcontext():
            x = self.feature_maps(
                x,
                conv=conv,
                norm=partial(
                    BatchNorm,
                    use_running_average=not train,
                    groups=groups,
                    interleaved=self.interleaved,
                ),
                drop=drop,
            )
        # In float32: rounding logits to bfloat16 changes likelihood and calibration.
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        x = drop(name="head_dropout")(x)
        x = head(self.num_classes, name="head", **members)(x)
        return x if self.num_members is None else unfold(x, self.num_members)
