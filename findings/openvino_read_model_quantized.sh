#!/usr/bin/env bash
# OpenVINO's Core.read_model computes wrong numbers for a quantised ONNX model in which a
# shape is computed; convert_model computes the right ones.
#
# Library:   openvino 2026.4.1, with onnx 1.23.2, onnxruntime 1.32.0 and numpy 2.4.6; Linux,
#            x86-64, CPU plugin, INFERENCE_PRECISION_HINT=f32.
# Expected:  Core().read_model(file) and openvino.convert_model(file) give models of the same
#            outputs, those of ONNX Runtime up to rounding.
# Happens:   Conv with a bias, Relu, QuantizeLinear and DequantizeLinear (uint8, zero point
#            0), a mean over the pixels, and an Expand whose shape comes from the batch size
#            (Shape, Gather, Concat), as exporters write a broadcast of a dynamic batch: the
#            model of read_model is off by half the largest output, without a warning,
#            also when it is saved and loaded again. Without the Expand, or without the
#            bias, it is right. convert_model is right in all cases.
# Way round: openvino.convert_model, and a comparison with another runtime.
# Seen:
#   bias and Expand: largest output 2.473, read_model off by 1.242, convert_model by 0.000
#   without Expand:  largest output 2.473, read_model off by 0.000, convert_model by 0.000
#   without bias:    largest output 2.365, read_model off by 0.000, convert_model by 0.000
#
# Usage: [PYTHON=python3.12] bash findings/openvino_read_model_quantized.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

FILE = "net.onnx"


def write(expand, bias):
    rng = np.random.default_rng(0)
    constants = {
        "kernel": rng.normal(size=(8, 1, 3, 3)).astype(np.float32),
        "bias": rng.normal(size=8).astype(np.float32),
        "scale": np.float32(0.02),
        "zero": np.uint8(0),
        "axes": np.array([2, 3]),
        "first": np.array([0]),
        "one": np.array([1]),
        "width": np.array([8]),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "kernel", *["bias"] * bias], ["h"], pads=[1] * 4),
        node("Relu", ["h"], ["r"]),
        node("QuantizeLinear", ["r", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        node("ReduceMean", ["d", "axes"], ["m"], keepdims=0),
    ]
    if expand:  # [n, 8] -> [1, n, 8]
        nodes += [
            node("Shape", ["m"], ["shape"]),
            node("Gather", ["shape", "first"], ["n"]),
            node("Concat", ["one", "n", "width"], ["wanted"], axis=0),
            node("Expand", ["m", "wanted"], ["out"]),
        ]
    else:
        nodes += [node("Identity", ["m"], ["out"])]
    used = {name for one in nodes for name in one.input}
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [tensor("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [tensor("out", TensorProto.FLOAT, [*[1] * expand, "n", 8])],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in constants.items()
            if name in used
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, FILE)


core = openvino.Core()
x = np.random.default_rng(1).normal(size=(16, 1, 8, 8)).astype(np.float32)
off = {}
for name, expand, bias in (
    ("bias and Expand", True, True),
    ("without Expand", False, True),
    ("without bias", True, False),
):
    write(expand, bias)
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(FILE, providers=providers)
    wanted = session.run(None, {"x": x})[0]
    largest = np.abs(wanted).max()
    differences = []
    for model in (core.read_model(FILE), openvino.convert_model(FILE)):
        hints = {"INFERENCE_PRECISION_HINT": "f32"}
        found = core.compile_model(model, "CPU", hints)(x)[0]
        differences.append(np.abs(found - wanted).max())
    off[name] = [difference / largest for difference in differences]
    read, converted = differences
    print(
        f"{name + ':':16} largest output {largest:.3f}, read_model off by {read:.3f}, "
        f"convert_model by {converted:.3f}"
    )
wrong = off["bias and Expand"]
right = [wrong[1], *off["without Expand"], *off["without bias"]]
sys.exit(not (wrong[0] > 0.1 and max(right) < 1e-3))
EOF
