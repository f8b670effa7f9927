#!/usr/bin/env bash
# Keras' AugMix draws its operations once per compilation: a compiled training step applies the
# same few operations to every batch.
#
# Library:   keras 3.15.1 on jax 0.10.2, with numpy 2.4.6; Linux, CPU.
# Expected:  new chains of operations at each call (Hendrycks et al. 2020, arXiv 1912.02781,
#            algorithm 1, draws them for each image). By the documentation one draw is shared by the
#            images of a batch, and "this layer is safe to use inside a `tf.data` or `grain`
#            pipeline".
# Happens:   the operations are drawn by Python's random.choice, the strengths and weights by Keras'
#            generator. Under jax.jit, as in Model.fit with the layer in the network, the first
#            is a constant of the trace, and the second are drawn at each step: outputs differ at
#            each step, so it does not show, but most operations never occur in a run. `seed` does
#            not reach random.choice. There is no exception or warning. Without a compilation all
#            operations occur. RandAugment draws its operations by Keras' generator.
#            Source: AugMix.get_random_transformation in
#            keras/src/layers/preprocessing/image_preprocessing/aug_mix.py.
# Way round: call the layer outside of the compiled step, such as in the loop that loads batches.
# Seen (3 chains of at most 1 of 7 operations; 50 steps of one image):
#   compiled, run 1: 1 draw, 50 different outputs, operations: equalization random_shear
#   compiled, run 2: 1 draw, 50 different outputs, operations: equalization solarization
#   compiled, run 3: 1 draw, 50 different outputs, operations: auto_contrast solarization
#   not compiled: 50 draws, operations: auto_contrast equalization random_posterization
#     random_rotation random_shear random_translation solarization
#
# Usage: [PYTHON=python3.12] bash findings/keras_augmix_compiled.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  keras==3.15.1 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 || exit 2
cd "$work"
KERAS_HOME="$work" KERAS_BACKEND=jax JAX_PLATFORMS=cpu "$work/venv/bin/python" - << 'EOF'
import random
import sys
import warnings

import jax
import keras
import numpy as np

STEPS, RUNS, SETTINGS = 50, 3, {"num_chains": 3, "chain_depth": 1, "all_ops": False}
image = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
random.seed(0)  # of the operations; `seed` is that of all else


def compiled():
    """Returns the operations that are drawn in 50 compiled steps, and the outputs."""
    layer = keras.layers.AugMix(value_range=(0, 1), seed=0, **SETTINGS)
    layer.build(image.shape)
    drawn, transformation = [], layer.get_random_transformation

    def recorded(*args, **kwargs):
        result = transformation(*args, **kwargs)
        drawn.append(names(result))
        return result

    layer.get_random_transformation = recorded

    @jax.jit
    def step(state, images):  # as Keras' JAX trainer calls the layers
        return layer.stateless_call([], state, images, training=True)

    state = [variable.value for variable in layer.non_trainable_variables]
    outputs = []
    for _ in range(STEPS):
        output, state = step(state, image)
        outputs.append(np.asarray(output))
    return drawn, outputs


def names(transformation):
    """Returns the operations of all chains."""
    chains = transformation["chain_transforms"]
    return [operation["layer_name"] for chain in chains for operation in chain]


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    draws, kinds, distinct = [], [], []
    for run in range(1, RUNS + 1):
        drawn, outputs = compiled()
        draws.append(len(drawn))
        kinds.append(sorted({name for draw in drawn for name in draw}))
        distinct.append(len({output.tobytes() for output in outputs}))
        print(
            f"compiled, run {run}: {draws[-1]} draw, {distinct[-1]} different outputs, "
            f"operations: {' '.join(kinds[-1]) or 'none'}"
        )
    layer = keras.layers.AugMix(value_range=(0, 1), seed=0, **SETTINGS)
    layer.build(image.shape)
    eager = [names(layer.get_random_transformation(image)) for _ in range(STEPS)]
    everything = sorted({name for draw in eager for name in draw})
    print(f"not compiled: {len(eager)} draws, operations: {' '.join(everything)}")
same_seed = len({tuple(found) for found in kinds}) > 1  # though `seed` is the same
once = set(draws) == {1} and all(len(found) <= 3 for found in kinds)
varied = any(count > 1 for count in distinct)
happens = once and varied and same_seed and len(everything) == 7
sys.exit(0 if happens and not caught else 1)
EOF
