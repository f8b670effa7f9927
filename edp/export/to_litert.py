"""Converts a program to LiteRT (.tflite) with TensorFlow's converter.

`jax2tf` passes the program on as StableHLO, so the layout stays [B, H, W, C]: no
transpositions, as a conversion from ONNX would add. TensorFlow is imported here only,
and by no program that reads the file.
"""

import json
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from edp.errors import InputError
from edp.export import onnx_graph

FILE = "model.tflite"
BATCH_SIZES = (1, 32)
"""Batch sizes of a file for any: with a symbolic one the converter broadcasts every
constant at run time, which took 1.8 times (a BatchEnsemble of four: five times) as
long. The weights are stored once."""


def convert(
    program: Callable[[jax.Array], Mapping[str, jax.Array]],
    image_shape: Sequence[int],
    names: Sequence[str],
    fixed: int | None,
    precision: str,
) -> bytes:
    """Converts a function of images uint8 [B, H, W, C] to a LiteRT model.

    The model has a signature `batch_B` for each batch size, with the input `images`
    and the program's outputs. Only operators of LiteRT itself are used.

    Args:
      program: from `export.create_program`.
      image_shape: (H, W, C).
      names: the names of its outputs.
      fixed: the only batch size; None: `BATCH_SIZES`.
      precision: 'float32'; 'float16': weights stored in float16, computed with in
        float32; 'int8': weights of 8 bits with a scale per output channel, and
        activations quantised before each layer, with ranges found at run time.

    Raises:
      InputError: if the program cannot be converted.
    """
    import tensorflow as tf
    from jax.experimental import jax2tf

    from edp.models import native

    def outputs(images):
        found = program(images)
        return {name: found[name] for name in names}

    module = tf.Module()
    module.functions = {}
    try:
        with native.disabled(), tempfile.TemporaryDirectory() as directory:
            for size in (fixed,) if fixed else BATCH_SIZES:
                spec = tf.TensorSpec((size, *image_shape), tf.uint8, "images")
                function = tf.function(
                    jax2tf.convert(outputs, with_gradient=False),
                    input_signature=[spec],
                    autograph=False,
                )
                module.functions[f"batch_{size}"] = function.get_concrete_function()
            tf.saved_model.save(module, directory, signatures=module.functions)
            converter = tf.lite.TFLiteConverter.from_saved_model(
                directory, signature_keys=list(module.functions)
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            if precision != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if precision == "float16":
                converter.target_spec.supported_types = [tf.float16]
            return bytes(converter.convert())
    except Exception as error:  # The converter can fail with any exception.
        raise InputError(
            f"the program cannot be converted to LiteRT: {error}"
        ) from error


def run(
    model: bytes, images: np.ndarray, name: str, metadata: Mapping[str, Any]
) -> np.ndarray:
    """Returns one output [N, ...] of a model for images uint8 [N, H, W, C].

    Args:
      model: from `convert`.
      images: the images.
      name: of the output.
      metadata: the contents of `metadata.json`.
    """
    from edp.export import load_litert

    size, *_ = metadata["input"]["shape"]
    fixed = size if isinstance(size, int) else None
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        (directory / FILE).write_bytes(model)
        (directory / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
        classify, _ = load_litert.load(directory)
    found = [classify(one)[name] for one in onnx_graph.batches(images, fixed)]
    return np.concatenate(found)[: len(images)]
