"""Models: sizes, BatchEnsemble against plain networks, layers by hand."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from edp.errors import InputError
from edp.models import ConvNet, count_params, create_model, rank_one_mask
from edp.models.batch_norm import BatchNorm
from edp.models.classifier import fold, unfold
from edp.models.dropout import Dropout
from edp.models.layers import Conv, Dense, convolve
from edp.models.resnet import identity_shortcut
from edp.models.resnet50 import BottleneckBlock
from edp.models.wide_resnet import PreActivationBlock

# Each network is compiled for one or two calls; optimisation would take longer.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
no_drop = partial(Dropout, 0.0, False)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SMALL = {
    "convnet": {"width": 4},
    "resnet": {"depth": 8, "width": 4},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
    "resnet50": {"blocks": (2, 1)},  # one of each kind of block
}
STRIDED = {**SMALL["resnet"], "stem_strides": 2}


def build(name, num_classes=5, **kwargs):
    common = {"dtype", "num_members", "factor_init"}
    config = {k: v for k, v in kwargs.items() if k not in common}
    return create_model(
        ConfigDict({"name": name, **config}),
        num_classes=num_classes,
        mean=MEAN,
        std=STD,
        **{k: v for k, v in kwargs.items() if k in common},
    )


def shapes(model, size=8):
    x = jnp.zeros((2, size, size, 3))
    init = partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), x)


def random_variables(module_shapes, seed=0):
    """Returns random variables: no scale is one, no mean or bias zero."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        z = rng.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key == "kernel":
            return z * np.sqrt(2 / np.prod(leaf.shape[:-1])).astype(np.float32)
        if path[-1].key in ("scale", "var"):
            return np.exp(0.3 * z)
        return 1 + 0.5 * z if path[-1].key in ("r", "s") else 0.3 * z

    return jax.tree_util.tree_map_with_path(fill, module_shapes)


def images(batch=3, size=8, channels=3, seed=1):
    rng = np.random.default_rng(seed)
    return rng.random((batch, size, size, channels), dtype=np.float32)


def map_layers(params, change):
    """Applies `change` to every dictionary that holds a kernel."""
    if "kernel" in params:
        return change(params)
    if any(isinstance(value, dict) for value in params.values()):
        return {key: map_layers(value, change) for key, value in params.items()}
    return params


def of_equal_members(params, num_members):
    """Returns BatchEnsemble parameters whose members all equal the plain network."""

    def change(layer):
        fan_in, features = layer["kernel"].shape[-2:]
        factors = {
            "kernel": layer["kernel"],
            "r": np.ones((num_members, fan_in), np.float32),
            "s": np.ones((num_members, features), np.float32),
        }
        if "bias" in layer:
            factors["bias"] = np.tile(layer["bias"], (num_members, 1))
        return factors

    return map_layers(params, change)


def of_member(params, member):
    """Returns the plain parameters of one member: W ∘ (r_m s_mᵀ) and its bias."""

    def change(layer):
        plain = {
            "kernel": layer["kernel"] * np.outer(layer["r"][member], layer["s"][member])
        }
        return plain | ({"bias": layer["bias"][member]} if "bias" in layer else {})

    return map_layers(params, change)


# Sizes.


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


def test_batch_ensemble_parameter_count_by_hand():
    convs = 27 * 16 + 2 * 9 * 16**2 + 9 * (16 * 32 + 32**2) + 9 * (32 * 64 + 64**2)
    norms = 2 * (16 + 2 * 16 + 2 * 32 + 2 * 64)
    plain = convs + norms + 64 * 10 + 10
    # Channels in and out of each of the seven convolutions and of the head.
    factors = 3 + 16 + 4 * 16 + (16 + 32) + 2 * 32 + (32 + 64) + 2 * 64 + (64 + 10)
    assert count_params(shapes(build("resnet", 10, depth=8))["params"]) == plain
    ensemble = shapes(build("resnet", 10, depth=8, num_members=4))
    assert count_params(ensemble["params"]) == plain + 4 * factors + 3 * 10


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


# BatchEnsemble against plain networks.


@pytest.mark.parametrize("name", SMALL)
def test_names_and_shapes_differ_only_in_the_factors(name):
    plain = shapes(build(name, **SMALL[name]))
    ensemble = shapes(build(name, **SMALL[name], num_members=2))
    plain_params = jax.tree.map(lambda leaf: np.zeros(leaf.shape), plain["params"])
    chex.assert_trees_all_equal_shapes(
        ensemble["params"], of_equal_members(plain_params, 2)
    )
    chex.assert_trees_all_equal_shapes(ensemble["batch_stats"], plain["batch_stats"])


@pytest.mark.parametrize("name", ["convnet", "resnet"])
def test_equal_members_are_the_plain_network(name):
    plain = build(name, **SMALL[name])
    ensemble = build(name, **SMALL[name], num_members=2)
    variables, x = random_variables(shapes(plain)), images()
    tiled = variables | {"params": of_equal_members(variables["params"], 2)}

    @quick_jit
    def run(variables, tiled):
        return [
            (
                model.apply(v, x, train=False),
                *model.apply(v, x, train=True, mutable=["batch_stats"]),
            )
            for model, v in ((plain, variables), (ensemble, tiled))
        ]

    (evaluated, trained, state), outputs = jax.device_get(run(variables, tiled))
    assert evaluated.shape == (3, 5)
    assert not np.allclose(evaluated, trained, atol=1e-2)
    expected = (np.stack([evaluated] * 2), np.stack([trained] * 2), state)
    chex.assert_trees_all_close(outputs, expected, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_each_member_is_the_plain_network_of_its_kernels(name):
    plain = build(name, **SMALL[name])
    ensemble = build(name, **SMALL[name], num_members=3)
    variables, x = random_variables(shapes(ensemble)), images(batch=2)
    logits = np.array(quick_jit(partial(ensemble.apply, train=False))(variables, x))
    assert logits.shape == (3, 2, 5)
    apply = quick_jit(partial(plain.apply, train=False))
    for member in range(3):
        own = variables | {"params": of_member(variables["params"], member)}
        np.testing.assert_allclose(logits[member], apply(own, x), rtol=1e-3, atol=1e-3)
    assert not np.allclose(logits[0], logits[1], atol=1e-2)
    assert not np.allclose(logits[:, 0], logits[:, 1], atol=1e-2)


def test_members_share_the_statistics_of_all_their_rows():
    model = build("convnet", width=4, num_members=2)
    variables, x = random_variables(shapes(model)), images()
    apply = partial(model.apply, train=True, mutable=["batch_stats"])
    _, state = quick_jit(apply)(variables, x)
    normalised = (x - np.array(MEAN)) / np.array(STD)
    rows = np.stack(
        [
            convolve(
                normalised, of_member(variables["params"], m)["conv1"]["kernel"], 1
            )
            for m in range(2)
        ]
    )
    before, after = variables["batch_stats"]["norm1"], state["batch_stats"]["norm1"]
    axes = (0, 1, 2, 3)
    np.testing.assert_allclose(
        after["mean"], 0.9 * before["mean"] + 0.1 * rows.mean(axes), atol=1e-5
    )
    np.testing.assert_allclose(
        after["var"], 0.9 * before["var"] + 0.1 * rows.var(axes), rtol=1e-4
    )


def test_folding_is_batch_major():
    folded = fold(jnp.array([[10.0], [20.0]]), 3)
    np.testing.assert_array_equal(folded[:, 0], [10, 10, 10, 20, 20, 20])
    unfolded = unfold(jnp.arange(6), 3)
    np.testing.assert_array_equal(unfolded, [[0, 3], [1, 4], [2, 5]])


def test_dense_multiplies_adds_and_folds_per_member():
    params = {
        "kernel": np.array([[1.0, 2.0]]),
        "r": np.array([[1.0], [3.0]]),
        "s": np.array([[1.0, 1.0], [1.0, 10.0]]),
        "bias": np.array([[0.0, 0.0], [0.5, 0.0]]),
    }
    rows = np.array([[1.0], [1.0], [2.0], [2.0]])  # Image, member: 00, 01, 10, 11.
    y = Dense(2, num_members=2).apply({"params": params}, rows)
    np.testing.assert_allclose(y, [[1, 2], [3.5, 60], [2, 4], [6.5, 120]])


def test_rank_one_mask_marks_the_factors_alone():
    params = shapes(build("convnet", width=4, num_members=2))["params"]
    mask = rank_one_mask(params)
    chex.assert_trees_all_equal_structs(mask, params)
    assert mask["head"] == {"kernel": False, "bias": False, "r": True, "s": True}
    assert mask["conv1"] == {"kernel": False, "r": True, "s": True}
    assert mask["norm1"] == {"scale": False, "bias": False}
    assert not any(jax.tree.leaves(rank_one_mask(shapes(build("convnet"))["params"])))


# Initialisation.


def test_kernels_start_he_normal_by_fan_in():
    init = quick_jit(Conv(64).init)
    variables = init(jax.random.key(0), np.zeros((1, 4, 4, 32), np.float32))
    kernel = np.array(variables["params"]["kernel"])
    assert set(variables["params"]) == {"kernel"}
    assert kernel.shape == (3, 3, 32, 64)
    deviation = np.sqrt(2 / (3 * 3 * 32))
    np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
    np.testing.assert_allclose(kernel.mean(), 0, atol=0.05 * deviation)
    assert np.abs(kernel).max() > 2.5 * deviation  # not truncated


def test_factors_start_as_asked():
    def start(factor_init):
        layer = Dense(64, num_members=64, factor_init=factor_init)
        init = quick_jit(layer.init)
        variables = init(jax.random.key(0), np.zeros((64, 64), np.float32))
        return jax.device_get(variables["params"])

    params = start("normal")
    for factor in (params["r"], params["s"]):
        np.testing.assert_allclose(factor.mean(), 1, atol=0.03)
        np.testing.assert_allclose(factor.std(), 0.5, atol=0.03)
    assert not np.allclose(params["r"], params["s"])
    params = start("sign")
    for factor in (params["r"], params["s"]):
        assert factor.dtype == jnp.float32
        np.testing.assert_array_equal(np.unique(factor), [-1, 1])
        np.testing.assert_allclose(factor.mean(), 0, atol=0.1)
    params = start("ones")
    assert (params["r"] == 1).all() and (params["s"] == 1).all()
    np.testing.assert_array_equal(params["bias"], np.zeros((64, 64)))


def test_zero_init_residual_starts_each_block_as_its_shortcut():
    x = images(size=4, channels=8) - 0.5
    norm = partial(BatchNorm, use_running_average=True)

    def start(zero_init_residual):
        block = BottleneckBlock(Conv, norm, no_drop, 2, 1, zero_init_residual)
        return quick_jit(block.init_with_output)(jax.random.key(0), x)[0]

    np.testing.assert_array_equal(start(True), np.maximum(x, 0))
    assert not np.allclose(start(False), np.maximum(x, 0), atol=1e-2)
    assert build("resnet50", zero_init_residual=True).zero_init_residual
    assert not build("resnet50").zero_init_residual


# Layers and blocks, by hand.


def test_convolution_pads_half_a_kernel_on_every_side():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    y = convolve(x, jnp.ones((3, 3, 1, 1)), strides=2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[10, 24], [51, 90]])
    y = convolve(x, jnp.ones((1, 1, 1, 1)), strides=2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 2], [8, 10]])
    assert convolve(x, jnp.ones((7, 7, 1, 1)), strides=1).shape == (1, 4, 4, 1)


def test_batch_norm_momentum_and_epsilon_by_hand():
    params = {"scale": np.array([2.0]), "bias": np.array([1.0])}
    stats = {"mean": np.array([10.0]), "var": np.array([3.0])}
    variables = {"params": params, "batch_stats": stats}
    x = np.array([1.0, 3.0, 5.0, 7.0]).reshape(4, 1, 1, 1)  # Mean 4, variance 5.
    train = BatchNorm(use_running_average=False)
    train = quick_jit(partial(train.apply, mutable=["batch_stats"]))
    y, state = train(variables, x)
    np.testing.assert_allclose(state["batch_stats"]["mean"], [9.4], rtol=1e-6)
    np.testing.assert_allclose(state["batch_stats"]["var"], [3.2], rtol=1e-6)
    np.testing.assert_allclose(y[0, 0, 0, 0], 1 - 2 * 3 / np.sqrt(5), rtol=1e-5)
    # A variance of 9e-6 is about as large as the epsilon of 1e-5.
    x = np.array([-0.003, 0.003]).reshape(2, 1, 1, 1)
    y, _ = train(variables, x)
    np.testing.assert_allclose(y[1, 0, 0, 0], 1 + 2 * 0.003 / 1.9e-5**0.5, rtol=1e-5)
    y = BatchNorm(use_running_average=True).apply(variables, np.array([[4.0]]))
    np.testing.assert_allclose(y, [[1 - 2 * 6 / np.sqrt(3)]], rtol=1e-5)


def test_identity_shortcut_subsamples_and_pads_channels_with_zeros():
    x = jnp.arange(18.0).reshape(1, 3, 3, 2)
    y = identity_shortcut(x, features=3, strides=2)
    np.testing.assert_array_equal(
        y[0], [[[0, 1, 0], [4, 5, 0]], [[12, 13, 0], [16, 17, 0]]]
    )
    np.testing.assert_array_equal(identity_shortcut(x, features=2, strides=1), x)


def test_wide_block_projects_its_raw_input():
    x = images(size=4, channels=2) - 0.5

    def with_silent_residual(features, strides):
        norm = partial(BatchNorm, use_running_average=True)
        block = PreActivationBlock(Conv, norm, no_drop, features, strides)
        variables = random_variables(jax.eval_shape(block.init, jax.random.key(0), x))
        params = variables["params"]
        params["conv2"]["kernel"] = np.zeros_like(params["conv2"]["kernel"])
        return quick_jit(block.apply)(variables, x), params

    y, params = with_silent_residual(features=4, strides=2)
    projection = params["shortcut"]["kernel"][0, 0]
    np.testing.assert_allclose(y, x[:, ::2, ::2] @ projection, atol=1e-6)
    y, params = with_silent_residual(features=2, strides=1)
    assert "shortcut" not in params
    np.testing.assert_array_equal(y, x)


def test_bottleneck_has_its_stride_in_the_3x3():
    norm = partial(BatchNorm, use_running_average=True)
    block = BottleneckBlock(Conv, norm, no_drop, 2, 2, zero_init_residual=False)
    x = jnp.zeros((1, 8, 8, 4))
    apply = partial(block.apply, capture_intermediates=True)
    variables = jax.eval_shape(block.init, jax.random.key(0), x)
    assert variables["params"]["conv2"]["kernel"].shape == (3, 3, 2, 2)
    state = jax.eval_shape(apply, variables, x)[1]["intermediates"]
    assert state["conv1"]["__call__"][0].shape == (1, 8, 8, 2)
    assert state["conv2"]["__call__"][0].shape == (1, 4, 4, 2)


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


# Whole models.


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


# create_model.


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
