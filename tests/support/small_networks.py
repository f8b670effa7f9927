"""Builds small networks, with random variables and images for them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from edp.models import create_model

# Each network is compiled for one or two calls; optimisation would take longer.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SMALL = {
    "convnet": {"width": 4},
    "resnet": {"depth": 8, "width": 4},
    "wide_resnet": {"depth": 10, "widen_factor": 1},
    "resnet50": {"blocks": (2, 1)},  # one of each kind of block
}
STRIDED = {**SMALL["resnet"], "stem_strides": 2}


def build(name, num_classes=5, **kwargs):
    """Creates a network of colour images; `kwargs` are its settings."""
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
    """Returns the shapes of its variables for images of size x size pixels."""
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
    """Draws images [B, size, size, C] from 0 to 1."""
    rng = np.random.default_rng(seed)
    return rng.random((batch, size, size, channels), dtype=np.float32)
