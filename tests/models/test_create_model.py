"""`create_model`: the settings that it passes on, and those that it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from small_networks import build

from edp.errors import InputError
from edp.models import create_model


def test_create_model_passes_the_settings_of_the_model():
    model = build("wide_resnet", depth=None, width=99, widen_factor=2)
    assert (model.depth, model.widen_factor) == (28, 2)
    assert model.name is None
    model = create_model(
        ConfigDict({"name": "convnet", "dtype": "bfloat16", "num_classes": 7}),
        num_classes=3,
        mean=np.array([0.5]),
        std=[0.25],
        num_members=2,
        factor_init="sign",
    )
    assert (model.num_classes, model.mean, model.std) == (3, (0.5,), (0.25,))
    assert (model.dtype, model.num_members) == (jnp.float32, 2)
    assert model.factor_init == "sign"
    hash(model)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wide_resent", {}, r"'wide_resent'.*'wide_resnet'\?.*convnet.*resnet50"),
        (None, {}, "name=None.*convnet"),
        ("resnet", {"dpeth": 20}, r"dpeth=20 is no .* \(did you mean 'depth'\?\)"),
        ("resnet", {"depth": 33}, r"depth=33.*6n\+2.*32"),
        ("resnet", {"depth": 34}, r"depth=34.*6n\+2"),
        ("resnet", {"depth": 2}, r"depth=2.*6n\+2"),
        ("resnet", {"depth": "32"}, "depth='32'"),
        ("resnet", {"stem_strides": 0}, "stem_strides=0"),
        ("resnet", {"stem_strides": 2.0}, r"stem_strides=2\.0"),
        ("wide_resnet", {"depth": 26}, r"depth=26.*6n\+4.*28"),
        ("wide_resnet", {"depth": 4}, r"depth=4.*6n\+4"),
        ("wide_resnet", {"widen_factor": 0}, "widen_factor=0"),
        ("convnet", {"width": -1}, "width=-1"),
        ("convnet", {"num_members": 0}, "num_members=0"),
        ("convnet", {"factor_init": "gauss"}, "'gauss'.*normal, sign, ones"),
        ("convnet", {"dtype": "float16"}, "'float16'.*float32, bfloat16"),
    ],
)
def test_create_model_refuses_with_one_clear_line(name, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        build(name, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5,), (0.2, 0.2), "differ in length"),
        ((0.5,), (0.0,), r"std=\(0.0,\).*above 0"),
    ],
)
def test_create_model_refuses_a_mean_and_std_that_cannot_normalise(mean, std, message):
    with pytest.raises(InputError, match=message):
        create_model(ConfigDict({"name": "convnet"}), num_classes=2, mean=mean, std=std)


def test_a_network_refuses_images_of_integers():
    images = jnp.zeros((2, 8, 8, 3), jnp.uint8)
    with pytest.raises(InputError, match="dtype uint8; accepted: floating-point"):
        jax.eval_shape(
            lambda: build("convnet").init(jax.random.key(0), images, train=False)
        )
