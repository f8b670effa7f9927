"""Converts an ONNX model to OpenVINO's own format."""

import json
import pathlib
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from edp.errors import InputError
from edp.export import onnx_graph

# Without this package OpenVINO reports nothing. It sends each report from a fork of
# this process, where JAX has threads: they can leave a lock held in the fork.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Largest accepted difference of probabilities from ONNX Runtime. Both round 8 bits
# differently, and weights may be float16 here.
TOLERANCE = 0.02
_IMAGES = 64


def convert(
    model: bytes,
    image_shape: tuple[int, ...],
    fixed: int | None,
    *,
    half_weights: bool = False,
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
        source.write_bytes(_with_expanded_operands(model))
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
        probs = found(images)["probs"]
        same_shape = probs.shape == wanted.shape
        difference = float(np.abs(probs - wanted).max()) if same_shape else np.inf
        if not difference <= TOLERANCE:
            raise InputError(
                f"to='openvino': probabilities differ from those of ONNX Runtime by "
                f"{difference:.1e}; accepted: up to {TOLERANCE}"
            )
        del found
        files = (target, target.with_suffix(".bin"))
        return {path.name: path.read_bytes() for path in files}


def _with_expanded_operands(model: bytes) -> bytes:
    """Returns a model whose products of matrices broadcast no first operand.

    For [1, B, I] times constants [M, I, O], as heads on one body multiply, the CPU
    plugin of 2026.4.1 raises or computes an empty batch where B is dynamic; see
    findings/openvino_broadcast_product.sh.
    """
    import onnx
    from onnx import helper, numpy_helper

    loaded = onnx.load_model_from_string(model)
    dims = {array.name: list(array.dims) for array in loaded.graph.initializer}
    nodes = []
    for node in loaded.graph.node:
        leading = dims.get(node.input[1], [])[:-2] if node.op_type == "MatMul" else []
        if leading:
            operand = f"{node.output[0]}_operand"
            shape = numpy_helper.from_array(
                np.array([*leading, 1, 1], np.int64), f"{operand}_shape"
            )
            loaded.graph.initializer.append(shape)
            inputs = [node.input[0], shape.name]
            nodes.append(helper.make_node("Expand", inputs, [operand], name=operand))
            node.input[0] = operand
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del loaded.graph.node[:]
    loaded.graph.node.extend(copies)
    return loaded.SerializeToString()


def check_bfloat16() -> None:
    """Raises an InputError where the CPU has no bfloat16."""
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in able:
        raise InputError(
            "precision='bfloat16' with to='openvino' needs a CPU with bfloat16, and "
            f"this one has {', '.join(able)}; accepted: another machine, or another "
            "precision"
        )


def run(
    files: Mapping[str, bytes], images: np.ndarray, metadata: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns the outputs [N, ...] for images uint8 [N, H, W, C].

    Args:
      files: from `convert`.
      images: the images.
      metadata: the contents of `metadata.json`, with the precision to compute at.
    """
    from edp.export import load_openvino

    size, *_ = metadata["input"]["shape"]
    fixed = size if isinstance(size, int) else None
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        for name, content in files.items():
            (directory / name).write_bytes(content)
        (directory / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
        classify, _ = load_openvino.load(directory)
        found = [classify(one) for one in onnx_graph.batches(images, fixed)]
        del classify
    return {
        name: np.concatenate([one[name] for one in found])[: len(images)]
        for name in found[0]
    }
