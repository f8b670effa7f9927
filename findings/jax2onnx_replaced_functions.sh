#!/usr/bin/env bash
# jax2onnx cannot convert two kinds of valid JAX functions, as it replaces functions of
# jax.numpy during the conversion.
#
# Library:   jax2onnx 0.17.1 with jax 0.10.2 and numpy 2.4.6.
# Expected:  to_onnx converts what jax.jit compiles.
# Happens:   jnp.shape, documented to return a tuple of integers, returns traced values, so
#            that a reshape to these raises a TypeError; x.shape does not. A constant that
#            is computed under jax.ensure_compile_time_eval raises one in jnp.concatenate
#            ("got multiple values for argument 'axis'").
# Way round: x.shape or numpy.shape; constants computed before the conversion.
# Seen:
#   constant: compiled by jax.jit, TypeError in to_onnx
#   shape:    compiled by jax.jit, TypeError in to_onnx
#   x.shape:  compiled by jax.jit, converted
#
# Usage: [PYTHON=python3.12] bash findings/jax2onnx_replaced_functions.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  jax2onnx==0.17.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - << 'EOF'
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax2onnx import to_onnx

TABLE = np.arange(6, dtype=np.float32).reshape(2, 3)


def constant(x):
    with jax.ensure_compile_time_eval():  # computed once
        table = jnp.concatenate([jnp.asarray(TABLE), jnp.ones((1, 3))], axis=0)
    return x @ table


def shape(x):
    rows, columns = jnp.shape(x)
    return x.reshape(columns, rows)


def attribute(x):
    rows, columns = x.shape
    return x.reshape(columns, rows)


x = jnp.ones((2, 3))
failed = []
for name, function in (("constant", constant), ("shape", shape), ("x.shape", attribute)):
    jax.jit(function)(x).block_until_ready()
    try:
        to_onnx(function, [jax.ShapeDtypeStruct(x.shape, x.dtype)])
    except TypeError:
        failed.append(name)
    outcome = "TypeError in to_onnx" if name in failed else "converted"
    print(f"{name + ':':9} compiled by jax.jit, {outcome}")
sys.exit(failed != ["constant", "shape"])
EOF
