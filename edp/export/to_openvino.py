"""Converts an ONNX model to OpenVINO's own format."""

import pathlib
import tempfile

import numpy as np

from edp.errors import InputError
from edp.export import onnx_graph

# Largest accepted difference of probabilities from ONNX Runtime. Both round 8 bits
# differently, and weights may be float16 here.
TOLERANCE = 0.02
_IMAGES = 64


def convert(
    model: bytes, image_shape: tuple[int, ...], fixed: int | None, *, half_weights: bool
) -> dict[str, bytes]:
    """Returns `model.xml`, the graph, and `model.bin`, its weights.

    Both models are run on random images.

    Args:
      model: ONNX with the output `probs`, quantised or not.
      image_shape: (H, W, C).
      fixed: the model's only batch size; None: any.
      half_weights: whether the weights are stored in float16. They are converted when
        the model is compiled, and computed with in float32.

    Raises:
      InputError: if OpenVINO cannot convert the model, or probabilities differ from
        those of ONNX Runtime by more than `TOLERANCE`.
    """
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch) / "model.onnx"
        source.write_bytes(model)
        target = pathlib.Path(scratch) / "model.xml"
        try:
            # `Core.read_model` of 2026.4.1 computes wrong numbers for some quantised
            # models; see findings/openvino_read_model_quantized.sh.
            openvino.save_model(
                openvino.convert_model(source), target, compress_to_fp16=half_weights
            )
            found = openvino.Core().compile_model(
                target, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
        except Exception as error:  # The converter can fail with any exception.
            raise InputError(f"OpenVINO cannot read the program: {error}") from error
        shape = (fixed or _IMAGES, *image_shape)
        images = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
        wanted = onnx_graph.run(model, images, "probs", fixed)
        difference = float(np.abs(found(images)["probs"] - wanted).max())
        if not difference <= TOLERANCE:
            raise InputError(
                f"to='openvino': probabilities differ from those of ONNX Runtime by "
                f"{difference:.1e}; accepted: up to {TOLERANCE}"
            )
        del found
        files = (target, target.with_suffix(".bin"))
        return {path.name: path.read_bytes() for path in files}
