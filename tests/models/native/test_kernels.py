"""The kernels compute what XLA does, and only on machines where they can."""

import functools
import hashlib
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from benchmarks import limits
from edp import models
from edp.export import artifact
from edp.models import batch_norm, cpu_convolution, native
from edp.runtime import flops

ROOT = pathlib.Path(__file__).parents[3]
KERNELS = pytest.mark.skipif(
    native.status()["kernels"] != "native", reason="this machine has no kernels"
)
# Members, images of each, size, channels, features, taps, strides.
SHAPES = [
    (1, 1, (5, 7), 8, 8, 3, 1),
    # The next four with fewer products.
    (1, 3, (16, 16), 16, 16, 3, 1),
    (4, 9, (8, 8), 64, 64, 3, 1),
    (2, 5, (11, 13), 16, 48, 3, 1),
    (1, 16, (33, 1), 32, 16, 3, 1),
    (4, 5, (8, 8), 64, 64, 3, 1),
    # Rows of tiles of several images at once, and a last group of fewer.
    (2, 300, (3, 3), 16, 24, 3, 1),
    # The same of gathered patches.
    (2, 20, (5, 7), 40, 56, 3, 2),
    (1, 2, (5, 7), 128, 136, 1, 2),
    (2, 1, (3, 33), 24, 40, 3, 1),
    (3, 2, (9, 8), 16, 32, 3, 2),
    (1, 1, (1, 1), 8, 16, 3, 2),
    (2, 2, (9, 7), 16, 8, 1, 2),
    (1, 19, (4, 4), 32, 16, 1, 1),
    # Of many channels in x, or in the cotangent.
    (2, 7, (5, 3), 128, 24, 1, 1),
    (2, 7, (5, 3), 24, 136, 1, 1),
    (1, 2, (6, 6), 3, 16, 3, 1),
    (1, 2, (9, 8), 12, 16, 3, 1),
    (1, 1, (7, 6), 21, 8, 3, 2),
    # Few images, of which several threads take bands.
    (1, 1, (33, 21), 48, 32, 3, 1),
    (1, 2, (15, 17), 40, 56, 3, 1),
    (1, 1, (33, 30), 40, 56, 3, 2),
]


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def assert_near(got, wanted, tolerance=1e-5):
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        error = np.abs(np.asarray(one, np.float64) - other).max()
        assert error <= tolerance * np.abs(other).max()


def in_double_precision(x, kernels, g, strides):
    """The convolution and its gradients, tap by tap."""
    members, taps = kernels.shape[:2]
    pad, (height, width) = taps // 2, g.shape[1:3]
    x, kernels, g = (np.asarray(a, np.float64) for a in (x, kernels, g))
    padded = np.pad(x, ((0, 0), (pad, pad + 1), (pad, pad + 1), (0, 0)))
    y, dx, dk = np.zeros_like(g), np.zeros_like(padded), np.zeros_like(kernels)
    for m in range(members):
        for i in range(taps):
            for j in range(taps):
                read = (
                    slice(m, None, members),
                    slice(i, i + strides * height, strides),
                    slice(j, j + strides * width, strides),
                )
                own = g[m::members]
                y[m::members] += padded[read][:, :height, :width] @ kernels[m, i, j]
                dx[read] += own @ kernels[m, i, j].T
                dk[m, i, j] = np.einsum("nhwc,nhwo->co", padded[read], own)
    return y, dx[:, pad : pad + x.shape[1], pad : pad + x.shape[2]], dk


def with_gradients(fn, g, *args):
    y, pull_back = jax.vjp(fn, *args)
    return y, *pull_back(jnp.asarray(g))


@KERNELS
@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions(shape):
    members, batch, size, channels, features, taps, strides = shape
    x = draw(0, members * batch, *size, channels)
    kernels = draw(1, members, taps, taps, channels, features)
    assert native.takes_convolution(x, kernels.shape[1:], strides)
    fn = functools.partial(native.convolve, strides=strides)
    g = draw(2, *jax.eval_shape(fn, x, kernels).shape)
    wanted = in_double_precision(x, kernels, g, strides)
    assert_near(with_gradients(fn, g, x, kernels), wanted)


@KERNELS
@pytest.mark.parametrize(
    "shape",
    [
        (4, 9, (9, 7), 8, 8, 3, 1),  # by Winograd's algorithm
        (4, 3, (5, 6), 3, 6, 3, 2),
        (4, 20, (5, 7), 16, 32, 3, 2),  # gathered
        (4, 2, (4, 5), 4, 2, 1, 1),
    ],
)
def test_members_whose_channels_alternate(shape):
    members, batch, size, channels, features, taps, strides = shape
    x = draw(0, members * batch, *size, channels)
    kernels = draw(1, members, taps, taps, channels, features)
    fn = functools.partial(native.convolve, strides=strides)
    g = draw(2, len(x), *(-(-n // strides) for n in size), features)
    y, dx, dk = in_double_precision(x, kernels, g, strides)

    def alternate(rows):
        rows = rows.reshape(batch, members, *rows.shape[1:])
        return np.moveaxis(rows, 1, -1).reshape(batch, *rows.shape[2:4], -1)

    x, g, y, dx = map(alternate, map(np.asarray, (x, g, y, dx)))
    assert native.takes_convolution(x, kernels.shape[1:], strides, interleaved=4)
    assert_near(with_gradients(fn, g, x, kernels), (y, dx, dk))


@KERNELS
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 8), (7, 48), (3, 41, 37, 16)])
def test_normalisation(shape, relu):
    x, g = 3 + draw(0, *shape), draw(1, *shape)
    scale, bias = draw(2, 2, shape[-1])
    y, mean, var = native.normalise(x, scale, bias, 1e-5, relu)
    wide = x.astype(np.float64).reshape(-1, shape[-1])
    inverse = 1 / np.sqrt(wide.var(0) + 1e-5)
    unit = (wide - wide.mean(0)) * inverse
    wanted = scale * unit + bias
    h = np.where(wanted > 0, 1, 1 - relu) * g.reshape(wide.shape)
    dx = scale * inverse * (h - h.mean(0) - unit * (h * unit).mean(0))
    wanted = np.maximum(wanted, 0) if relu else wanted
    assert_near((y, mean, var), (wanted.reshape(shape), wide.mean(0), wide.var(0)))
    fn = lambda *args: native.normalise(*args, 1e-5, relu)[0]  # noqa: E731
    got = with_gradients(fn, g, x, scale, bias)[1:]
    assert_near(got, (dx.reshape(shape), (h * unit).sum(0), h.sum(0)))


@KERNELS
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_stay_so(value):
    x = jax.random.normal(jax.random.key(0), (4, 3, 3, 16)).at[1, 0, 2, 5].set(value)
    scale, bias = jnp.ones(16), jnp.zeros(16)
    own, *_ = native.normalise(x, scale, bias, 1e-5, True)
    expected = jax.nn.relu(batch_norm.normalise(x, scale, bias, 1e-5)[0])
    assert np.isnan(expected[..., 5]).all()
    np.testing.assert_array_equal(np.isnan(own), np.isnan(expected))


def test_a_mean_far_from_zero_costs_no_digits_of_the_variance():
    if native.status()["kernels"] == "native":
        x = 1000 + draw(0, 512, 16)
        _, mean, var = native.normalise(x, jnp.ones(16), jnp.zeros(16), 1e-5, False)
        wide = x.astype(np.float64)
        assert_near((mean, var), (wide.mean(0), wide.var(0)), 1e-5)


def loss_of_layers(x, kernel, scale):
    y = cpu_convolution.convolve(x, kernel, 2)
    layer = batch_norm.BatchNorm(use_running_average=False, relu=True)
    stats = {"mean": jnp.zeros(16), "var": jnp.ones(16)}
    variables = {
        "params": {"scale": scale, "bias": jnp.ones(16) / 2},
        "batch_stats": stats,
    }
    y, _ = layer.apply(variables, y, mutable=["batch_stats"])
    return jnp.square(y).mean() + (y[0] ** 3).mean()


def gradient_of_gradient(x, kernel, scale):
    def norm(*args):
        grads = jax.grad(loss_of_layers, (0, 1, 2))(*args)
        return sum(jnp.square(leaf).sum() for leaf in grads)

    return jax.grad(norm, (0, 1, 2))(x, kernel, scale)


GRADIENTS = jax.grad(loss_of_layers, (0, 1, 2))


@KERNELS
@pytest.mark.parametrize(
    ("transformed", "stacked"),
    [
        (gradient_of_gradient, (False, False, False)),
        (jax.vmap(GRADIENTS, (0, None, 0)), (True, False, True)),
        (lambda *args: jax.lax.map(lambda a: GRADIENTS(*a), args), (True,) * 3),
    ],
)
def test_transformed_as_with_xla(transformed, stacked):
    shapes = (6, 5, 4, 8), (3, 3, 8, 16), (16,)
    args = [
        1 + draw(i, *((2,) if several else ()), *shape)
        for i, (shape, several) in enumerate(zip(shapes, stacked, strict=True))
    ]
    fn = jax.jit(transformed)
    assert "edp_convolve" in fn.lower(*args).as_text()
    got = jax.tree.leaves(fn(*args))
    with native.disabled():  # traces anew
        assert "custom_call" not in fn.lower(*args).as_text()
        assert_near(got, jax.tree.leaves(fn(*args)), 1e-4)


def build_model(**settings):
    config = ml_collections.ConfigDict({"name": "convnet", "width": 8})
    return models.create_model(
        config, num_classes=3, mean=(0.5,) * 3, std=(0.25,) * 3, **settings
    )


@KERNELS
@pytest.mark.parametrize("num_members", [None, 3])
def test_a_network_learns_as_with_xla(num_members):
    model = build_model(num_members=num_members)
    x = jnp.asarray(np.random.default_rng(0).random((2, 9, 8, 3), np.float32))
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(0), x
    )

    @jax.jit
    def gradients(params, x):
        def loss(params, x):
            rest = {"batch_stats": variables["batch_stats"]}
            y, moved = model.apply(
                {"params": params, **rest}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.square(y).mean(), moved

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    assert "edp_kernel_gradient" in gradients.lower(variables["params"], x).as_text()
    got = jax.tree.leaves(gradients(variables["params"], x))
    with native.disabled():
        wanted = jax.tree.leaves(gradients(variables["params"], x))
    assert_near(got, wanted, 1e-3)


@KERNELS
def test_programs_that_leave_or_are_counted_have_none():
    model = build_model()
    images = np.zeros((1, 8, 8, 3), np.uint8)
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(0), images / 255
    )

    def program(images):
        return {"probs": model.apply(variables, images / 255, train=False)}

    assert "edp_convolve" in jax.jit(program).lower(images).as_text()
    assert b"edp_convolve" not in artifact.serialize(program, images.shape[1:])
    with pytest.raises(flops.Uncountable, match="compiled kernel"):
        flops.flops(program, images)
    with cpu_convolution.plain_gradients():
        counted = flops.flops(program, images)
    assert limits.forward_flops(program, images) == counted > 0


def test_what_no_kernel_is_for():
    x = jax.ShapeDtypeStruct((2, 8, 8, 16), jnp.float32)
    assert native.takes_convolution(x, (3, 3, 16, 16), 1) == native.in_use()
    for dtype in (jnp.bfloat16, jnp.float64):
        like = jax.ShapeDtypeStruct(x.shape, dtype)
        assert not native.takes_convolution(like, (3, 3, 16, 16), 1)
        assert not native.takes_normalisation(like)
    for shape, strides in [
        ((5, 5, 16, 16), 1),
        ((3, 3, 16, 12), 1),
        ((3, 3, 16, 16), 3),
        ((3, 3, 640, 640), 1),
    ]:
        assert not native.takes_convolution(x, shape, strides)
    many = jax.ShapeDtypeStruct((64, 8, 8, 640), jnp.float32)
    assert native.takes_convolution(many, (3, 3, 640, 640), 1) == native.in_use()
    assert not native.takes_convolution(many, (3, 3, 640, 640), 2)  # 1024 outputs
    for features, fits in ((6, native.in_use()), (3, False)):
        shape = (3, 3, 16, features)
        assert native.takes_convolution(x, shape, 1, interleaved=4) == fits
    odd = jax.ShapeDtypeStruct((3, 5, 5, 8), jnp.float32)
    assert not native.takes_normalisation(odd)


HASH = """
import hashlib, os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.path.insert(0, "tests/models/native")
from test_kernels import hash_of_results
print(hash_of_results())
"""


def hash_of_results():
    x, results = draw(0, 24, 9, 8, 16), []
    # All but the first are of bands of one image.
    for images, kernels, strides in [
        (x, draw(1, 2, 3, 3, 16, 32), 1),
        (draw(2, 1, 33, 21, 48), draw(3, 1, 3, 3, 48, 32), 1),
        (draw(2, 1, 16, 16, 40), draw(3, 1, 3, 3, 40, 56), 1),
        (draw(2, 1, 33, 30, 40), draw(3, 1, 3, 3, 40, 56), 2),
        (draw(2, 1, 33, 28, 40), draw(3, 1, 3, 3, 40, 56), 2),
    ]:
        fn = functools.partial(native.convolve, strides=strides)
        g = draw(4, *jax.eval_shape(fn, images, kernels).shape)
        results += with_gradients(fn, g, images, kernels)
    layer = lambda x: native.normalise(x, x[0, 0, 0], x[1, 1, 1], 1e-5, True)[0]  # noqa: E731
    results += with_gradients(layer, draw(3, *x.shape), jnp.asarray(x))
    return hashlib.sha256(
        b"".join(np.asarray(r).tobytes() for r in results)
    ).hexdigest()


@KERNELS
def test_one_thread_gives_the_bits_of_many():
    done = subprocess.run(
        [sys.executable, "-c", HASH], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == hash_of_results(), done
