"""Converts an ONNX model to OpenVINO's own format."""

import pathlib
import tempfile

from edp.errors import InputError


def convert(model: bytes, *, half_weights: bool) -> dict[str, bytes]:
    """Returns `model.xml`, the graph, and `model.bin`, its weights.

    Args:
      model: ONNX, quantised or not.
      half_weights: whether the weights are stored in float16. They are converted when
        the model is compiled, and computed with in float32.

    Raises:
      InputError: if OpenVINO cannot read the model.
    """
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch) / "model.onnx"
        source.write_bytes(model)
        target = pathlib.Path(scratch) / "model.xml"
        try:
            # Not by `convert_model`, which reports its use to a server.
            read = openvino.Core().read_model(source)
            openvino.save_model(read, target, compress_to_fp16=half_weights)
        except Exception as error:  # The converter can fail with any exception.
            raise InputError(f"OpenVINO cannot read the program: {error}") from error
        return {
            path.name: path.read_bytes()
            for path in (target, target.with_suffix(".bin"))
        }
