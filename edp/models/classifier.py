"""What all models have in common: everything before and after the feature maps."""

import numbers
from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from edp.errors import InputError
from edp.models.batch_norm import BatchNorm
from edp.models.dropout import Dropout
from edp.models.layers import Conv, Dense, factor_initializer


def fold(x: jax.Array, num_members: int) -> jax.Array:
    """Gives every member its own copy of each image.

    Args:
        x: [B, ...].
        num_members: M.

    Returns:
        [B*M, ...], where row b·M + m is x[b].
    """
    return jnp.repeat(x, num_members, axis=0)


def unfold(rows: jax.Array, num_members: int) -> jax.Array:
    """Takes folded rows [B*M, ...] apart into [M, B, ...]."""
    chex.assert_is_divisible(rows.shape[0], num_members)
    rows = rows.reshape(-1, num_members, *rows.shape[1:])
    return jnp.swapaxes(rows, 0, 1)


def check_positive(name: str, value: Any) -> None:
    """Raises InputError unless the setting called `name` is a positive integer."""
    if not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(f"{name}={value!r}: accepted is an integer of at least 1")


def check_groups(groups: int | None, name: str, batch_size: int) -> None:
    """Raises InputError unless a batch, of the size called `name`, has equal parts."""
    if groups is not None and batch_size % groups:
        raise InputError(
            f"model.batchnorm_groups={groups} does not divide {name}={batch_size}; "
            "accepted: None or a number of equal parts of the batch"
        )


def _several(layer: type[nn.Module], number: int) -> type[nn.Module]:
    """Layers as one, [..., C] -> [number, ..., features], equal at the start."""
    return nn.vmap(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": False},
        in_axes=None,
        axis_size=number,
    )


class Classifier(nn.Module):
    """An image classifier: normalise, feature maps, mean over positions, dense.

    A model defines `feature_maps` and knows neither of members nor of precision:
    it builds its layers with the `conv` and `norm` that it is given.

    Attributes:
        num_classes: K.
        mean: per channel, of images in [0, 1].
        std: per channel, of images in [0, 1].
        dtype: what the feature maps are computed in. Normalisation, the last
            layer, the parameters and the statistics are float32.
        num_members: None for one network; M for a BatchEnsemble of M.
        factor_init: how its rank-one factors start: 'normal', 'sign' or 'ones'.
        shared_bias: whether its members share their biases too, as they do kernels.
        num_heads: None for one last layer; M for M of them, equal at the start, on
            the features of one network.
        extra_channels: how many follow the image's, to be taken as they are.
        batchnorm_groups: None, or G: in training, batch normalisation takes each of
            G equal, consecutive parts of the images (with all members) by itself.
        dropout_rate: the share of features dropped before the last layer, and in
            residual blocks before their last 3x3 convolution as in Wide ResNets
            (arXiv 1605.07146, §2.4). See `Dropout` for when.

    Raises:
        InputError: on construction, if a setting is out of its range.
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
    batchnorm_groups: int | None = None
    dropout_rate: float = 0.0

    def __post_init__(self):
        check_positive("num_classes", self.num_classes)
        if self.num_members is not None:
            check_positive("num_members", self.num_members)
        if self.num_heads is not None:
            check_positive("num_heads", self.num_heads)
            if self.num_members is not None:
                raise InputError(
                    f"num_heads={self.num_heads}: accepted is None where there are "
                    "num_members, each with a head of its own"
                )
        if self.batchnorm_groups is not None:
            check_positive("batchnorm_groups", self.batchnorm_groups)
        if not 0 <= self.dropout_rate < 1:
            raise InputError(
                f"dropout_rate={self.dropout_rate!r}: accepted is a number from 0 to "
                "below 1"
            )
        factor_initializer(self.factor_init)
        if len(self.mean) != len(self.std):
            raise InputError(
                f"mean={self.mean}, std={self.std}: accepted are two of one length, "
                "the number of channels"
            )
        if not all(std > 0 for std in self.std):
            raise InputError(f"std={self.std}: accepted are numbers above 0")
        super().__post_init__()

    def feature_maps(
        self,
        x: jax.Array,
        conv: Callable[..., nn.Module],
        norm: Callable[..., nn.Module],
        drop: Callable[..., nn.Module],
    ) -> jax.Array:
        """Maps normalised images to the features that are averaged and classified.

        Args:
            x: [N, H, W, C].
            conv: makes a `Conv`, from its features, kernel size, strides and name.
            norm: makes a `BatchNorm`, from its name and whether a ReLU follows.
            drop: makes a `Dropout`, from its name.

        Returns:
            [N, H', W', features].
        """
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Classifies images.

        Args:
            x: [B, H, W, C] in [0, 1], and extra channels of any value. All members
                see the same images.
            train: whether batch normalisation uses, and updates, the statistics
                of this batch (`mutable=['batch_stats']`) or those it has kept.

        Returns:
            Logits, float32 [B, K]; [M, B, K] with members or heads.

        Raises:
            InputError: in training, if `batchnorm_groups` does not divide B.
        """
        mean = (*self.mean, *[0.0] * self.extra_channels)
        std = (*self.std, *[1.0] * self.extra_channels)
        mean, std = jnp.asarray((mean, std), jnp.float32)
        chex.assert_shape(x, (None, None, None, len(mean)))
        members: dict[str, Any] = {
            "num_members": self.num_members,
            "factor_init": self.factor_init,
            "shared_bias": self.shared_bias,
        }
        groups = self.batchnorm_groups if train else None
        check_groups(groups, "batch_size", x.shape[0])
        drop = partial(Dropout, self.dropout_rate, train)
        x = ((x - mean) / std).astype(self.dtype)
        if self.num_members is not None:
            x = fold(x, self.num_members)
        x = self.feature_maps(
            x,
            conv=partial(Conv, dtype=self.dtype, **members),
            norm=partial(BatchNorm, use_running_average=not train, groups=groups),
            drop=drop,
        )
        # Logits rounded to bfloat16 would show in likelihood and calibration.
        x = x.astype(jnp.float32).mean(axis=(1, 2))
        x = drop(name="head_dropout")(x)
        head = Dense if self.num_heads is None else _several(Dense, self.num_heads)
        x = head(self.num_classes, name="head", **members)(x)
        return x if self.num_members is None else unfold(x, self.num_members)
