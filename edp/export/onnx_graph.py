"""Converts a program to ONNX, for other runtimes than JAX."""

import contextlib
import logging
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.export
import numpy as np

from edp.errors import InputError
from edp.export import layout

INPUT = "images"


def convert(
    program: Callable[[jax.Array], Mapping[str, jax.Array]],
    image_shape: Sequence[int],
    names: Sequence[str],
    batch_size: int | None = None,
) -> bytes:
    """Converts a function of images [B, H, W, C] to ONNX.

    The input is `images`, uint8. ONNX Runtime removes transpositions that cancel and
    adds biases to convolutions; the operators are those of ONNX itself. A program that
    draws random numbers cannot be converted.

    Args:
      program: from `export.create_program`.
      image_shape: (H, W, C).
      names: the names of its outputs.
      batch_size: B; None: any.

    Raises:
      InputError: if the program cannot be converted.
    """
    import onnxruntime
    from jax2onnx import to_onnx

    from edp.models import native

    def outputs(images):
        found = program(images)
        return tuple(found[name] for name in names)

    size = batch_size or jax.export.symbolic_shape("batch")[0]
    try:
        with (
            native.disabled(),
            without_warnings(),
            tempfile.TemporaryDirectory() as scratch,
        ):
            model = to_onnx(
                outputs,
                [jax.ShapeDtypeStruct((size, *image_shape), np.uint8)],
                input_names=[INPUT],
                output_names=list(names),
            )
            path = pathlib.Path(scratch) / "model.onnx"
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = (
                onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            )
            options.optimized_model_filepath = str(path)
            options.log_severity_level = 3
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            return layout.transpose_constants(path.read_bytes())
    except Exception as error:  # The converter can fail with any exception.
        raise InputError(f"the program cannot be converted to ONNX: {error}") from error


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Inside, converters log errors only; they warn about what is dealt with here."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def batches(
    images: np.ndarray, fixed: int | None, size: int = 100
) -> Iterator[np.ndarray]:
    """Yields images in batches.

    Args:
      images: [N, ...].
      fixed: the only batch size, for which the last image is repeated at the end;
        None: any.
      size: the batch size where it is not fixed; the last batch may be smaller.
    """
    if fixed is not None:
        missing = -len(images) % fixed
        images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        size = fixed
    for start in range(0, len(images), size):
        yield images[start : start + size]


def run(
    model: bytes, images: np.ndarray, name: str, fixed: int | None = None
) -> np.ndarray:
    """Returns one output [N, ...] of a model for images uint8 [N, H, W, C].

    Args:
      model: ONNX.
      images: the images.
      name: of the output.
      fixed: the model's only batch size; None: any.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = [session.run([name], {INPUT: batch})[0] for batch in batches(images, fixed)]
    return np.concatenate(found)[: len(images)]
