"""Whole networks: logits of a reference without modules, gradients and dtypes."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import (
    MEAN,
    SMALL,
    STD,
    STRIDED,
    build,
    images,
    quick_jit,
    random_variables,
    shapes,
)

from edp.models import ConvNet
from edp.models.layers import convolve
from edp.models.resnet import identity_shortcut


def reference_logits(name, stem_strides, variables, x):
    """Computes evaluation logits of the small plain networks without modules."""
    params, stats = variables["params"], variables["batch_stats"]

    def conv(x, layer, strides=1):
        return convolve(x, params_of(params, layer)["kernel"], strides)

    def norm(x, layer):
        p, s = params_of(params, layer), params_of(stats, layer)
        return (x - s["mean"]) / jnp.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]

    def params_of(tree, layer):
        for key in layer.split("/"):
            tree = tree[key]
        return tree

    def relu(x):
        return jnp.maximum(x, 0)

    def max_pool(x):
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
        height, width = x.shape[1] - 2, x.shape[2] - 2
        shifts = [(i, j) for i in range(3) for j in range(3)]
        views = [x[:, i : i + height : 2, j : j + width : 2] for i, j in shifts]
        return jnp.stack(views).max(axis=0)

    x = (x - np.array(MEAN)) / np.array(STD)
    if name == "resnet":
        x = relu(norm(conv(x, "stem_conv", stem_strides), "stem_norm"))
        for block, strides in (("stage1", 1), ("stage2", 2), ("stage3", 2)):
            block += "_block1/"
            y = relu(norm(conv(x, block + "conv1", strides), block + "norm1"))
            y = norm(conv(y, block + "conv2"), block + "norm2")
            x = relu(identity_shortcut(x, y.shape[-1], strides) + y)
    if name == "wide_resnet":
        x = conv(x, "stem_conv")
        for block, strides in (("stage1", 1), ("stage2", 2), ("stage3", 2)):
            block += "_block1/"
            y = conv(relu(norm(x, block + "norm1")), block + "conv1", strides)
            y = conv(relu(norm(y, block + "norm2")), block + "conv2")
            x = y + (x if block < "stage2" else conv(x, block + "shortcut", strides))
        x = relu(norm(x, "final_norm"))
    if name == "resnet50":
        x = max_pool(relu(norm(conv(x, "stem_conv", 2), "stem_norm")))
        for block, strides in (
            ("stage1_block1/", 1),
            ("stage1_block2/", 1),
            ("stage2_block1/", 2),
        ):
            y = relu(norm(conv(x, block + "conv1"), block + "norm1"))
            y = relu(norm(conv(y, block + "conv2", strides), block + "norm2"))
            y = norm(conv(y, block + "conv3"), block + "norm3")
            if block.endswith("block1/"):
                x = conv(x, block + "shortcut_conv", strides)
                x = norm(x, block + "shortcut_norm")
            x = relu(x + y)
    return x.mean(axis=(1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("resnet", STRIDED),
        *((name, SMALL[name]) for name in ("resnet", "wide_resnet", "resnet50")),
    ],
)
def test_networks_equal_the_reference(name, settings):
    model = build(name, **settings)
    variables, x = random_variables(shapes(model)), images(batch=2, size=16)
    logits = quick_jit(partial(model.apply, train=False))(variables, x)
    reference = partial(reference_logits, name, settings.get("stem_strides", 1))
    expected = quick_jit(reference)(variables, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_convnet_by_hand_from_normalisation_to_logits():
    """With identity kernels, only normalisation, stride and pooling remain."""

    def centre(taps):
        kernel = np.zeros((3, 3, *np.shape(taps)), np.float32)
        kernel[1, 1] = taps
        return {"kernel": kernel}

    def ones(n):
        return np.ones(n, np.float32)

    model = ConvNet(2, mean=(0.5, 0.25), std=(0.5, 0.125), width=1)
    params = {
        "conv1": centre([[1.0], [10.0]]),
        "conv2": centre([[1.0, 2.0]]),
        "conv3": centre([[1.0, 0.0], [0.0, 1.0]]),
        "head": {"kernel": np.eye(2, dtype=np.float32), "bias": np.array([0.0, 7.0])},
    }
    stats = {}
    for name, n in (("norm1", 1), ("norm2", 2), ("norm3", 2)):
        params[name] = {"scale": ones(n), "bias": 0 * ones(n)}
        stats[name] = {"mean": 0 * ones(n), "var": ones(n) - 1e-5}
    x = images(size=4, channels=2)
    variables = {"params": params, "batch_stats": stats}
    logits = np.array(quick_jit(partial(model.apply, train=False))(variables, x))
    mixed = (x[..., 0] - 0.5) / 0.5 + 10 * (x[..., 1] - 0.25) / 0.125
    pooled = np.maximum(mixed, 0)[:, ::2, ::2].mean(axis=(1, 2))
    np.testing.assert_allclose(logits[:, 0], pooled, rtol=1e-5)
    np.testing.assert_allclose(logits[:, 1], 2 * pooled + 7, rtol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_has_a_finite_gradient(name):
    model = build(name, **SMALL[name], num_members=2)
    variables, x = random_variables(shapes(model)), images(batch=4)

    @quick_jit
    @jax.grad
    def gradient(params):
        logits, _ = model.apply(
            variables | {"params": params}, x, train=True, mutable=["batch_stats"]
        )
        return -jax.nn.log_softmax(logits)[..., 0].mean()

    gradients = jax.device_get(gradient(variables["params"]))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and np.any(leaf != 0), path


@pytest.mark.parametrize("num_members", [None, 2])
def test_bfloat16_leaves_logits_parameters_and_statistics_float32(num_members):
    precise = build("convnet", width=4, num_members=num_members)
    model = build("convnet", width=4, num_members=num_members, dtype="bfloat16")
    chex.assert_trees_all_equal_dtypes(shapes(model), shapes(precise))
    variables, x = random_variables(shapes(model)), images()
    mutable = ["batch_stats", "intermediates"]
    apply = partial(
        model.apply, train=True, mutable=mutable, capture_intermediates=True
    )
    logits, state = quick_jit(apply)(variables, x)
    for name in ("conv1", "norm1", "conv3", "norm3"):
        assert state["intermediates"][name]["__call__"][0].dtype == jnp.bfloat16
    assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(state["batch_stats"]))
    assert logits.dtype == jnp.float32
    assert np.any(logits != logits.astype(jnp.bfloat16).astype(jnp.float32))
    apply = partial(precise.apply, train=True, mutable=["batch_stats"])
    expected, _ = quick_jit(apply)(variables, x)
    np.testing.assert_allclose(logits, expected, atol=0.1)


def test_images_of_other_channels_are_refused():
    model = build("convnet")
    with pytest.raises(AssertionError):
        model.init(jax.random.key(0), jnp.zeros((2, 8, 8, 1)), train=False)
