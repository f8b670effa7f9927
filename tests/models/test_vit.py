"""Vision transformer against formulas and hand values."""

from functools import partial

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from edp.errors import InputError
from edp.models import count_params, create_model
from edp.models.vit import split_patches

# Each network is compiled for one or two calls; optimisation would take longer.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {"depth": 2, "width": 8, "heads": 2, "patch_size": 4}
X = np.random.default_rng(0).random((3, 8, 8, 2), dtype=np.float32)


def build(num_members=None, **settings):
    return create_model(
        ConfigDict({"name": "vit", **SMALL, **settings}),
        num_classes=5,
        mean=(0.5, 0.4),
        std=(0.25, 0.5),
        num_members=num_members,
    )


def apply(model, variables):
    return quick_jit(partial(model.apply, train=False))(variables, X)


def initial(model):
    """Returns variables without zeros and ones."""
    variables = quick_jit(partial(model.init, train=False))(jax.random.key(0), X)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape), variables)


def test_patches_by_hand():
    x = jnp.arange(2 * 4 * 3).reshape(1, 4, 6, 1)  # rows 0..5, 6..11, ...
    patches = split_patches(x, 2)
    assert patches.shape == (1, 6, 4)
    np.testing.assert_array_equal(patches[0, 0], [0, 1, 6, 7])
    np.testing.assert_array_equal(patches[0, 2], [4, 5, 10, 11])
    np.testing.assert_array_equal(patches[0, 3], [12, 13, 18, 19])


def test_the_number_of_parameters_by_hand():
    block = 8 * 24 + 24 + 8 * 8 + 8 + 8 * 16 + 16 + 16 * 8 + 8 + 2 * 16
    embedding = 4 * 4 * 2 * 8 + 8 + 8 + 5 * 8  # patches, class token, positions
    shapes = jax.eval_shape(partial(build().init, train=False), jax.random.key(0), X)
    assert shapes.keys() == {"params"}
    assert count_params(shapes["params"]) == embedding + 2 * block + 16 + 8 * 5 + 5


def test_the_logits_equal_the_formulas():
    """Eq. 1 to 4 of arXiv 2010.11929, with one softmax per head."""
    model = build()
    variables = initial(model)
    params = variables["params"]

    def dense(x, layer):
        return x @ layer["kernel"].reshape(x.shape[-1], -1) + layer["bias"]

    def norm(x, layer):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return centred / deviation * layer["scale"] + layer["bias"]

    def attention(x, block):
        projected = np.split(dense(x, block["query_key_value"]), 3, axis=-1)
        heads = []
        for query, key, value in zip(
            *(np.split(x, 2, axis=-1) for x in projected), strict=True
        ):
            scores = query @ np.swapaxes(key, 1, 2) / np.sqrt(4)
            weights = np.exp(scores)
            heads.append(weights / weights.sum(-1, keepdims=True) @ value)
        return dense(np.concatenate(heads, axis=-1), block["projection"])

    x = (X - np.array([0.5, 0.4])) / np.array([0.25, 0.5])
    x = dense(split_patches(x, 4), params["patches"])
    token = np.tile(params["class_token"][0, 0], (3, 1, 1))
    x = np.concatenate([token, x], axis=1) + params["positions"][:, :, 0]
    for name in ("block1", "block2"):
        block = params[name]
        x = x + attention(norm(x, block["norm1"]), block)
        hidden = jax.nn.gelu(dense(norm(x, block["norm2"]), block["mlp1"]))
        x = x + dense(hidden, block["mlp2"])
    expected = dense(norm(x[:, 0], params["final_norm"]), params["head"])
    np.testing.assert_allclose(apply(model, variables), expected, rtol=1e-4, atol=1e-4)


def test_a_member_is_the_plain_network_of_its_kernels():
    ensemble = build(num_members=2)
    variables = initial(ensemble)

    def of_member(m, tree):
        if "r" in tree:
            kernel = tree["kernel"] * np.outer(tree["r"][m], tree["s"][m])
            return {"kernel": kernel, "bias": tree["bias"][m]}
        return {
            k: of_member(m, v) if isinstance(v, dict) else v for k, v in tree.items()
        }

    logits = apply(ensemble, variables)
    chex.assert_shape(logits, (2, 3, 5))
    for m in range(2):
        plain = {"params": of_member(m, variables["params"])}
        expected = apply(build(), plain)
        np.testing.assert_allclose(logits[m], expected, rtol=1e-4, atol=1e-4)


def test_a_program_for_any_batch_size():
    model = build()
    (size,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((size, *X.shape[1:]), X.dtype)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), X)
    logits = jax.eval_shape(partial(model.apply, train=False), variables, x)
    assert logits.shape == (size, 5)


def test_rematerialised_blocks_compute_the_same():
    plain, remat = build(), build(remat=True)
    variables = initial(plain)

    def gradient(model):
        def loss(x):
            return (model.apply(variables, x, train=True) ** 2).sum()

        return quick_jit(jax.grad(loss))(X)

    np.testing.assert_allclose(gradient(plain), gradient(remat), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"heads": 3}, "heads=3 .*width=8"), ({"patch_size": 0}, "patch_size=0")],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        build(**settings)


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"patch_size=3 does not divide .* 8x8"):
        build(patch_size=3).init(jax.random.key(0), X, train=False)
