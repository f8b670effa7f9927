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
from edp.export import onnx_graph
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


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_pool_that_loses_its_padding_is_refused(precision, tmp_path):
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
            precision=precision,
        )
    assert not (tmp_path / "out").exists()
