#!/usr/bin/env bash
# jax2onnx ignores the padding of Flax's pooling where it is given as numbers, as in the stem
# of a ResNet, and computes other numbers for three functions of JAX.
#
# Library:   jax2onnx 0.17.1 with jax 0.10.2, flax 0.12.8, onnxruntime 1.32.0 and numpy 2.4.6.
# Expected:  to_onnx writes a model of the function's numbers, or refuses. By the documentation
#            of Flax and JAX, `padding` is "SAME", "VALID" or pairs of numbers, one_hot gives
#            zeros for an index out of range, and lax.round rounds halves away from zero.
# Happens:   without an exception or a warning of jax2onnx:
#            - Pairs of numbers become "VALID", in max_pool and avg_pool of flax.linen and
#              flax.nnx. A mean over the pixels, as in a classifier, hides the missing
#              margin: the shape of the outputs is right.
#            - The index -1 is the last class, as OneHot of ONNX counts from the end.
#            - Halves are rounded to even.
#            - jax.image.resize with "nearest" takes the other pixel where a centre lies
#              between two: of 8 pixels to 4, the even ones instead of the odd ones.
# Way round: jnp.pad (with -inf, or with zeros after ReLU) and padding="VALID"; in any case,
#            compare the outputs of the model with those of the function.
# Seen:
#   mean of max_pool, padding 1 1   largest difference 0.606 of 1.914
#   mean of avg_pool, padding 1 1   largest difference 0.267 of 0.217
#   mean of max_pool, jnp.pad       largest difference 0.000 of 1.914
#   mean of max_pool, "SAME"        largest difference 0.000 of 1.774
#   one_hot of -1                   largest difference 1.000 of 1.000
#   lax.round of 0.5, 1.5, 2.5      largest difference 1.000 of 3.000
#   resize "nearest", 8 to 4        largest difference 5.417 of 3.106
#
# Usage: [PYTHON=python3.12] bash findings/jax2onnx_padding.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  jax2onnx==0.17.1 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 onnxruntime==1.32.0 \
  numpy==2.4.6 || exit 2
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - << 'EOF'
import logging
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from flax import linen as nn
from jax2onnx import to_onnx

logging.disable(logging.WARNING)
images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
window = {"window_shape": (3, 3), "strides": (2, 2)}
ones = ((1, 1), (1, 1))


def pooled(name, **settings):
    return lambda x: getattr(nn, name)(x, **window, **settings).mean((1, 2))


def padded(x):
    wide = jnp.pad(x, ((0, 0), *ones, (0, 0)), constant_values=-np.float32(np.inf))
    return nn.max_pool(wide, **window, padding="VALID").mean((1, 2))


cases = {
    "mean of max_pool, padding 1 1": (pooled("max_pool", padding=ones), images),
    "mean of avg_pool, padding 1 1": (
        pooled("avg_pool", padding=ones, count_include_pad=True),
        images,
    ),
    "mean of max_pool, jnp.pad": (padded, images),
    'mean of max_pool, "SAME"': (pooled("max_pool", padding="SAME"), images),
    "one_hot of -1": (lambda x: jax.nn.one_hot(x, 3), np.array([-1, 0], np.int32)),
    "lax.round of 0.5, 1.5, 2.5": (jax.lax.round, np.array([0.5, 1.5, 2.5], np.float32)),
    'resize "nearest", 8 to 4': (
        lambda x: jax.image.resize(x, (2, 4, 4, 3), "nearest"),
        images,
    ),
}
off = {}
for name, (function, x) in cases.items():
    wanted = np.asarray(jax.jit(function)(x))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = to_onnx(function, [jax.ShapeDtypeStruct(x.shape, x.dtype)])
    assert not [one for one in caught if "jax2onnx" in str(one.filename)]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found = session.run(None, {session.get_inputs()[0].name: x})[0]
    assert found.shape == wanted.shape
    off[name] = np.abs(found - wanted).max()
    print(
        f"{name:31} largest difference {off[name]:.3f} of {np.abs(wanted).max():.3f}"
    )
right = {"mean of max_pool, jnp.pad", 'mean of max_pool, "SAME"'}
happens = all((off[name] < 1e-5) == (name in right) for name in off)
sys.exit(0 if happens else 1)
EOF
