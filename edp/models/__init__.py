"""Image classifiers in Flax Linen, each a plain network or a BatchEnsemble.

```
model = create_model(config.model, num_classes=10, mean=mean, std=std)
variables = model.init(key, images[:1], train=False)
logits = model.apply(variables, images, train=False)
```
"""

import dataclasses
import difflib
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import ml_collections

from edp.errors import InputError
from edp.models.classifier import Classifier, check_groups
from edp.models.convnet import ConvNet
from edp.models.dropout import Dropout
from edp.models.layers import average_factors, rank_one_mask
from edp.models.resnet import ResNet
from edp.models.resnet50 import ResNet50
from edp.models.vit import ViT
from edp.models.wide_resnet import WideResNet

__all__ = [
    "MODELS",
    "Classifier",
    "ConvNet",
    "Dropout",
    "ResNet",
    "ResNet50",
    "ViT",
    "WideResNet",
    "average_factors",
    "check_groups",
    "count_params",
    "create_model",
    "rank_one_mask",
]

MODELS: dict[str, type[Classifier]] = {
    "convnet": ConvNet,
    "resnet": ResNet,
    "resnet50": ResNet50,
    "vit": ViT,
    "wide_resnet": WideResNet,
}

# Not float16: its range would require loss scaling.
DTYPES = ("float32", "bfloat16")


def create_model(
    config: ml_collections.ConfigDict,
    *,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: str = "float32",
    num_members: int | None = None,
    factor_init: str = "normal",
    shared_bias: bool = False,
    num_heads: int | None = None,
    extra_channels: int = 0,
    num_images: int = 1,
    width_factor: float = 1.0,
) -> Classifier:
    """Builds the model named in a config.

    Args:
      config: `name` (one of `MODELS`), `batchnorm_groups` (see `Classifier`),
        `dropout_rate` (None is 0) and settings of that model, such as depth, width or
        widen_factor. A setting that is None keeps the model's default; settings of
        other models are ignored.
      num_classes: K.
      mean: per channel, of images in [0, 1].
      std: per channel, of images in [0, 1].
      dtype: 'float32' or 'bfloat16', the dtype of the feature maps.
      num_members: None for one network; M for a BatchEnsemble of M.
      factor_init: initialisation of its rank-one factors: 'normal', 'sign' or 'ones'.
      shared_bias: whether its members also share their biases.
      num_heads: None for one last layer; M for M on the same features.
      extra_channels: number of channels after the image's that are not normalised.
      num_images: number of images concatenated along the channels of an input.
      width_factor: multiplies the channels of every layer but the last.

    Returns:
      The model, not yet initialised.

    Raises:
      InputError: the name is unknown, a setting is not accepted, or one is that of no
        model.
    """
    name = config.get("name")
    if name not in MODELS:
        nearest = difflib.get_close_matches(str(name), MODELS, n=1, cutoff=0.0)[0]
        raise InputError(
            f"model.name={name!r} is not known (did you mean {nearest!r}?); accepted: "
            f"{', '.join(MODELS)}"
        )
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is not known; accepted: {', '.join(DTYPES)}")
    model = MODELS[name]
    common = _fields(Classifier)
    known = common.union(*map(_fields, MODELS.values()))
    for key in config:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise InputError(
                f"{key}={config[key]!r} is no setting of any model (did you mean "
                f"{nearest!r}?)"
            )
    own = _fields(model) - common
    settings = {key: config[key] for key in own if config.get(key) is not None}
    return model(
        num_classes=num_classes,
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        dtype=jnp.dtype(dtype),
        num_members=num_members,
        factor_init=factor_init,
        shared_bias=shared_bias,
        num_heads=num_heads,
        extra_channels=extra_channels,
        num_images=num_images,
        width_factor=width_factor,
        batchnorm_groups=config.get("batchnorm_groups"),
        dropout_rate=config.get("dropout_rate") or 0.0,
        **settings,
    )


def _fields(model: type[Classifier]) -> set[str]:
    return {field.name for field in dataclasses.fields(model)}


def count_params(params: chex.ArrayTree) -> int:
    """Counts the parameters in a pytree of arrays or of shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
