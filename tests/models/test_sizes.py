"""Parameter counts and feature maps of the networks, against the papers."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from small_networks import SMALL, STRIDED, build, shapes

from edp.models import count_params


@pytest.mark.parametrize(
    ("name", "num_classes", "settings", "expected"),
    [
        ("resnet", 10, {"depth": 32}, 464_154),
        ("wide_resnet", 10, {"depth": 28, "widen_factor": 10}, 36_479_194),
        ("wide_resnet", 100, {}, 36_536_884),
        ("wide_resnet", 200, {"widen_factor": 5}, 9_193_624),
        ("wide_resnet", 100, {"widen_factor": 4}, 5_872_180),
        ("resnet50", 1000, {}, 25_557_032),
    ],
)
def test_parameter_counts_are_those_of_the_papers(
    name, num_classes, settings, expected
):
    variables = shapes(build(name, num_classes, **settings), size=32)
    assert count_params(variables["params"]) == expected


@pytest.mark.parametrize(
    ("name", "size", "last", "expected"),
    [
        ("convnet", 8, "norm3", (4, 4, 8)),
        ("resnet", 32, "stage3_block1", (8, 8, 16)),
        ("resnet_stem", 32, "stage3_block1", (4, 4, 16)),
        ("resnet_stem", 7, "stage1_block1", (4, 4, 4)),
        ("wide_resnet", 32, "final_norm", (8, 8, 64)),
        ("resnet50", 224, "stage4_block3", (7, 7, 2048)),
    ],
)
def test_feature_maps_have_the_size_of_the_papers(name, size, last, expected):
    own = {"resnet50": {}, "resnet_stem": STRIDED}.get(name, SMALL.get(name))
    model = build(name.removesuffix("_stem"), **own)
    x = jnp.zeros((2, size, size, 3))
    apply = partial(model.apply, train=False, capture_intermediates=True)
    _, state = jax.eval_shape(apply, shapes(model, size), x)
    assert state["intermediates"][last]["__call__"][0].shape == (2, *expected)
