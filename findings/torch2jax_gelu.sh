#!/usr/bin/env bash
# torch2jax computes PyTorch's exact GELU with the tanh approximation.
#
# Library:   torch2jax 0.1.0, with torch 2.13.0, jax 0.10.2 and numpy 2.4.6; Linux.
# Expected:  t2j(torch.nn.GELU()) computes x Φ(x) with the error function, as PyTorch
#            does, or refuses. The README of torch2jax promises a graph that follows the
#            PyTorch code "exactly ... down to the last epsilon".
# Happens:   the tanh approximation, without an exception or a warning. torch.nn.GELU
#            passes approximate="none"; torch2jax hands it on to jax.nn.gelu, whose
#            `approximate` is a boolean, and a non-empty string is true.
# Seen:
#   x                              -3.00000 -2.00000 -1.00000  0.50000  1.00000  2.00000  3.00000
#   torch.nn.GELU()                -0.00405 -0.04550 -0.15866  0.34573  0.84134  1.95450  2.99595
#   jax.nn.gelu, approximate=False -0.00405 -0.04550 -0.15866  0.34573  0.84134  1.95450  2.99595
#   jax.nn.gelu, approximate=True  -0.00364 -0.04540 -0.15881  0.34571  0.84119  1.95460  2.99636
#   t2j(torch.nn.GELU())           -0.00364 -0.04540 -0.15881  0.34571  0.84119  1.95460  2.99636
#   largest error 4.1e-04; warnings: 0
#
# Usage: [TORCH_WHEEL=torch.whl] [PYTHON=python3.12] bash findings/torch2jax_gelu.sh
# TORCH_WHEEL replaces the wheel that pip chooses, which may bring CUDA along.
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  torch2jax==0.1.0 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 \
  "${TORCH_WHEEL:-torch==2.13.0}" || exit 2
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - << 'EOF'
import sys
import warnings

import jax
import numpy as np
import torch
from torch2jax import t2j

x = np.array([-3, -2, -1, 0.5, 1, 2, 3], np.float32)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    converted = t2j(torch.nn.GELU())(t2j(torch.tensor(x)))
rows = {
    "x": x,
    "torch.nn.GELU()": torch.nn.GELU()(torch.tensor(x)).numpy(),
    "jax.nn.gelu, approximate=False": jax.nn.gelu(x, approximate=False),
    "jax.nn.gelu, approximate=True": jax.nn.gelu(x, approximate=True),
    "t2j(torch.nn.GELU())": converted,
}
for name, row in rows.items():
    print(f"{name:30}", *(f"{value:8.5f}" for value in np.asarray(row)))
_, exact, jax_exact, jax_tanh, converted = map(np.asarray, rows.values())
error = np.abs(converted - exact).max()
print(f"largest error {error:.1e}; warnings: {len(caught)}")
assert np.abs(jax_exact - exact).max() < 1e-5, "torch and JAX differ in the exact GELU"
tanh = np.abs(converted - jax_tanh).max() < 1e-5
sys.exit(0 if tanh and error > 1e-4 and not caught else 1)
EOF
