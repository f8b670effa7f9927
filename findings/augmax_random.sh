#!/usr/bin/env bash
# Five random transformations of augmax do something else than they say, or nothing.
#
# Library:   augmax 0.4.1 with jax 0.10.2, einops 0.8.1 and numpy 2.4.6; Linux.
# Expected and happens, without an exception or a warning:
#   Rotate            Angles from (-30, 30), with the probability p. The angle and whether to
#                     rotate are drawn with one key: it rotates where the number drawn is
#                     below p, so with p = 0.5 all angles are below 0. The default, p = 1, is
#                     right.
#   ColorJitter       The adjusted saturation is thrown away. Keys are paired with brightness,
#                     contrast, hue and saturation, but there are only as many as strengths
#                     above 0: hue alone changes nothing either.
#   RandomSizedCrop   prevent_underzoom, the default, is to keep the crop inside the image. Its
#                     bound is the logarithm of the smallest zoom, not the zoom itself: half of
#                     the crops of 32 from 32 pixels have black margins.
#   RandomCrop        A window of the image. Its corner is a fraction of a pixel, so that each
#                     crop is blurred by linear interpolation, where test images are not.
#   GaussianBlur      A standard deviation of sigma. It is about half of sigma, of a window
#                     of 2 sigma pixels, and the image moves by half a pixel.
# Way round: whether to rotate decided outside, with p=1; brightness, contrast and hue all
#            above 0; a zoom_range that starts at the ratio of the sizes; crops by
#            jax.lax.dynamic_slice; a blur of one's own.
# Seen:
#   Rotate((-30, 30), p=0.5): 52 % one way, 48 % not, 0 % the other way
#   Rotate((-30, 30), p=1.0): 52 % one way, 0 % not, 48 % the other way
#   ColorJitter, one strength of 0.3, largest change: brightness 0.298, hue 0.000,
#   saturation 0.000
#   RandomSizedCrop, 32 of 32 white pixels: 49 % with black ones
#   RandomCrop of black and white pixels: 100 % of its pixels are grey
#   GaussianBlur, standard deviation and shift: sigma 1 0.50 0.50, sigma 2 0.91 0.50,
#   sigma 3 1.52 0.50, sigma 5 2.69 0.50
#
# Usage: [PYTHON=python3.12] bash findings/augmax_random.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  augmax==0.4.1 einops==0.8.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - << 'EOF'
import sys
import warnings

import augmax
import jax
import jax.numpy as jnp
import numpy as np

KEYS = jax.random.split(jax.random.key(0), 500)


def of_keys(transformation, image):
    """Returns the image, transformed with each key."""
    chain = augmax.Chain(transformation)
    return np.asarray(jax.vmap(lambda key: chain(key, image))(KEYS))


def rotations(p):
    """Returns the shares of clockwise, no and counterclockwise rotations of a line."""
    rows, columns = np.mgrid[:33, :33] - 16.0
    line = jnp.asarray(np.exp(-(columns**2) / 4)[..., None])  # upright
    images = of_keys(augmax.Rotate((-30, 30), p=p), line)[..., 0]
    tilt = (images * rows * columns).mean((1, 2))  # of one sign for each direction
    signs = np.where(abs(tilt) < 1e-4, 0, np.sign(tilt))
    return [float((signs == sign).mean()) for sign in (-1, 0, 1)]


def jitter(**strength):
    """Returns the largest change of a pixel."""
    off = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "p": 1.0}
    images = of_keys(augmax.ColorJitter(**(off | strength)), colours)
    return float(abs(images - np.asarray(colours)).max())


def spread(sigma):
    """Returns centre and standard deviation of the blurred image of one pixel."""
    point = jnp.zeros((61, 61, 1)).at[30, 30].set(1.0)
    column = of_keys(augmax.GaussianBlur(sigma, p=1.0), point)[0].sum((1, 2))
    offsets = np.arange(61) - 30
    centre = (offsets * column).sum()
    return centre, ((offsets - centre) ** 2 * column).sum() ** 0.5


colours = jax.random.uniform(jax.random.key(1), (8, 8, 3))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    half, whole = rotations(0.5), rotations(1.0)
    for p, (one, none, other) in ((0.5, half), (1.0, whole)):
        print(
            f"Rotate((-30, 30), p={p}): {100 * one:.0f} % one way, {100 * none:.0f} % not, "
            f"{100 * other:.0f} % the other way"
        )
    rotated = min(half[0], half[2]) == 0 and max(half) > 0.4 and min(whole[::2]) > 0.4

    changes = {name: jitter(**{name: 0.3}) for name in ("brightness", "hue", "saturation")}
    print(
        "ColorJitter, one strength of 0.3, largest change: "
        + ", ".join(f"{name} {change:.3f}" for name, change in changes.items())
    )
    jittered = changes["brightness"] > 0.1 and max(list(changes.values())[1:]) < 1e-5

    crops = of_keys(augmax.RandomSizedCrop(32, 32), jnp.ones((32, 32, 1)))
    margins = float((crops < 0.5).any((1, 2, 3)).mean())
    print(f"RandomSizedCrop, 32 of 32 white pixels: {100 * margins:.0f} % with black ones")

    checks = jnp.asarray(np.indices((40, 40)).sum(0) % 2, jnp.float32)[..., None]
    windows = of_keys(augmax.RandomCrop(32, 32), checks)
    grey = float(((windows > 0.01) & (windows < 0.99)).mean())
    print(f"RandomCrop of black and white pixels: {100 * grey:.0f} % of its pixels are grey")

    spreads = {sigma: spread(sigma) for sigma in (1, 2, 3, 5)}
    print(
        "GaussianBlur, standard deviation and shift: "
        + ", ".join(f"sigma {sigma} {s:.2f} {c:.2f}" for sigma, (c, s) in spreads.items())
    )
    blurred = all(
        s < 0.6 * sigma and abs(abs(c) - 0.5) < 1e-3 for sigma, (c, s) in spreads.items()
    )
happens = rotated and jittered and 0.3 < margins < 0.7 and grey > 0.9 and blurred
sys.exit(0 if happens and not caught else 1)
EOF
