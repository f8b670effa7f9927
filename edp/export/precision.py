"""Reduces the precision of ONNX models: int8 and float16.

Only what leads to a layer with weights loses precision. The tail (softmax, logarithms,
temperature, scores of uncertainty) stays in float32: quantised, it would lose the
calibration and the disagreement of members that an ensemble is distilled for.
"""

import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from edp import metrics
from edp.errors import InputError
from edp.export import onnx_graph

FLOAT32 = "float32"
BFLOAT16 = "bfloat16"
PRECISIONS = (FLOAT32, "float16", BFLOAT16, "int8")
_LAYERS = ("Conv", "Gemm", "MatMul")


def to_float16(model: bytes) -> bytes:
    """Returns an ONNX model that computes its layers in float16.

    Inputs, outputs and all that follows the last layer keep their types.
    """
    import onnx
    from onnxruntime.transformers import float16

    loaded = _with_names(onnx.load_model_from_string(model))
    nodes = {name: node for node in loaded.graph.node for name in node.output}
    pending = [node for node in loaded.graph.node if node.op_type in _LAYERS]
    converted: set[str] = set()
    while pending:
        node = pending.pop()
        if node.name not in converted:
            converted.add(node.name)
            pending.extend(nodes[name] for name in node.input if name in nodes)
    kept = [node.name for node in loaded.graph.node if node.name not in converted]
    result = float16.convert_float_to_float16(
        loaded, keep_io_types=True, node_block_list=kept
    )
    _remove_casts(result.graph)
    return result.SerializeToString()


def _remove_casts(graph) -> None:
    """Removes casts of float32 to float16 and back, which outputs have from the tail.

    The converter casts every output from float16, and what it kept to float16 first.
    """
    import onnx

    def target(node):
        return node.attribute[0].i if node.op_type == "Cast" else None

    makers = {name: node for node in graph.node for name in node.output}
    for last in [n for n in graph.node if target(n) == onnx.TensorProto.FLOAT]:
        first = makers.get(last.input[0])
        if first is None or target(first) != onnx.TensorProto.FLOAT16:
            continue
        last.op_type = "Identity"
        last.input[0] = first.input[0]
        del last.attribute[:]


def to_int8(model: bytes, images: np.ndarray, fixed: int | None = None) -> bytes:
    """Returns an ONNX model with convolutions of 8 bits (static quantisation).

    Weights have a scale per output channel and 7 bits: ONNX Runtime adds two products
    in 16 bits on x86 processors without VNNI, where those of 8 bits saturate (its page
    on quantisation, "reduce range"). Activations are unsigned, with the range found on
    the calibration images.

    Args:
      model: ONNX in float32.
      images: calibration images, uint8 [N, H, W, C], of the training split.
      fixed: the model's only batch size; None: any.

    Raises:
      InputError: if the model has no convolutions.
    """
    import onnx
    from onnxruntime import quantization

    loaded = _with_names(onnx.load_model_from_string(model))
    if not any(node.op_type == "Conv" for node in loaded.graph.node):
        raise InputError(
            "precision='int8' needs a network with convolutions, and this one has "
            "none; accepted: float32, float16"
        )
    with tempfile.TemporaryDirectory() as scratch, onnx_graph.without_warnings():
        target = pathlib.Path(scratch) / "quantised.onnx"
        quantization.quantize_static(
            loaded,
            target,
            _calibration_reader(images, fixed),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,  # see the docstring
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return target.read_bytes()


def refit_temperature(
    model: bytes, predict: Callable[[np.ndarray], np.ndarray], images, labels
) -> tuple[bytes, float]:
    """Rescales the output `probs` to the temperature of the lowest NLL.

    Args:
      model: ONNX with the output `probs`.
      predict: images -> the model's `probs` [N, K].
      images: validation images [N, H, W, C].
      labels: integers [N].

    Returns:
      The model with softmax(log(probs) / T) in the place of `probs`, and T, relative
      to the temperature that the model had.
    """
    import onnx
    from onnx import helper, numpy_helper

    relative = metrics.fit_temperature(predict(images), labels).temperature
    loaded = onnx.load_model_from_string(model)
    for node in loaded.graph.node:
        node.output[:] = ["probs_before" if n == "probs" else n for n in node.output]
        node.input[:] = ["probs_before" if n == "probs" else n for n in node.input]
    smallest = float(np.finfo(np.float32).tiny)
    constants = {"probs_smallest": smallest, "probs_t": relative}
    loaded.graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), name)
        for name, value in constants.items()
    )
    steps = [
        ("Max", ["probs_before", "probs_smallest"], "probs_positive", {}),
        ("Log", ["probs_positive"], "probs_log", {}),
        ("Div", ["probs_log", "probs_t"], "probs_tempered", {}),
        ("Softmax", ["probs_tempered"], "probs", {"axis": -1}),
    ]
    loaded.graph.node.extend(
        helper.make_node(kind, inputs, [output], name=f"refitted_{kind}", **attributes)
        for kind, inputs, output, attributes in steps
    )
    return loaded.SerializeToString(), relative


def with_temperature(
    program: Callable[..., Any], relative: float
) -> Callable[..., Any]:
    """Returns a program with softmax(log(probs) / T) in the place of `probs`.

    Args:
      program: from `export.create_program`.
      relative: T, relative to the temperature that the program has.
    """
    smallest = np.finfo(np.float32).tiny

    def tempered(images):
        found = program(images)
        log = jnp.log(jnp.maximum(found["probs"], smallest))
        return {**found, "probs": jax.nn.softmax(log / relative, axis=-1)}

    return tempered


def _with_names(model):
    """Names every node, as quantisation needs it."""
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    return model


def _calibration_reader(images: np.ndarray, fixed: int | None):
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self._batches = onnx_graph.batches(images, fixed)

        def get_next(self):
            batch = next(self._batches, None)
            return None if batch is None else {onnx_graph.INPUT: batch}

    return Reader()
