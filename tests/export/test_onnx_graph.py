"""Tests of the conversion to ONNX: each network predicts as it does in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_runtimes import require
from flax import linen as nn
from untrained_runs import draw

from edp import export, models
from edp.errors import InputError
from edp.export import onnx_graph, precision
from edp.models import native

NETWORKS = {
    "convnet": {"width": 4},
    "resnet": {"depth": 8, "width": 4, "stem_strides": 2},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
    "resnet50": {"blocks": (1, 1)},
    "vit": {"depth": 1, "width": 8, "heads": 2, "patch_size": 4},
}


def test_every_network_is_tested():
    assert set(NETWORKS) == set(models.MODELS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_converted_network_predicts_as_jax_does(name):
    require("onnx")
    settings = {"num_classes": 3, "mean": (0.5, 0.4, 0.6), "std": (0.2, 0.3, 0.25)}
    model = models.MODELS[name](**settings, **NETWORKS[name])
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    x = jnp.zeros((1, 16, 16, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))

    def probs(variables, x):
        return jax.nn.softmax(model.apply(variables, x, train=False))[None]

    with native.disabled():
        program = export.create_program(probs, lambda *_: {}, draw(shapes, 0), 1.0)
        wanted = program(images)["probs"]
        converted = onnx_graph.convert(program, (16, 16, 3), ["probs"])
    found = onnx_graph.run(converted, images, "probs")
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("bits", ["float32", "float16"])
def test_a_pool_that_loses_its_padding_is_refused(bits, tmp_path):
    require("onnx")
    ones = ((1, 1), (1, 1))

    def probs(_, x):
        x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=ones)
        return jax.nn.softmax(20 * x.mean((1, 2)))[None]

    program = export.create_program(probs, lambda *_: {}, None, 1.0)
    with pytest.raises(InputError, match=r"differs from JAX by .*; accepted: up to"):
        export.write_artifact(
            program,
            (8, 8, 3),
            tmp_path / "out",
            classes=["a", "b", "c"],
            targets=["onnx"],
            precision=bits,
        )
    assert not (tmp_path / "out").exists()


def test_int8_products_do_not_saturate():
    """As they would with weights of 8 bits, on an x86 processor without VNNI."""
    require("onnx")
    import onnx

    rng = np.random.default_rng(0)
    signs = np.sign(rng.uniform(-0.4, 0.6, (3, 3, 64, 8)))
    kernels = rng.uniform(0.5, 1, (3, 3, 64, 8)) * signs, rng.normal(size=(1, 1, 8, 3))

    def score(_, x):
        for kernel in kernels:
            x = jax.lax.conv_general_dilated(
                nn.relu(x),
                jnp.float32(kernel),
                (1, 1),
                "VALID",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return {"score": x[:, 0, 0, 0]}

    program = export.create_program(
        lambda _, x: jnp.ones_like(x[None, :, 0, 0, :1]), score, None, 1.0
    )
    converted = onnx_graph.convert(program, (8, 8, 64), ["probs", "score"])
    images = rng.integers(128, 256, (64, 8, 8, 64), np.uint8)
    quantised = precision.to_int8(converted, images)
    weights = [
        onnx.numpy_helper.to_array(array)
        for array in onnx.load_model_from_string(quantised).graph.initializer
    ]
    largest = [int(np.abs(np.int32(w)).max()) for w in weights if w.dtype == np.int8]
    assert max(largest) == 64
    found, wanted = (onnx_graph.run(m, images, "score") for m in (quantised, converted))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=wanted.std() / 4)
