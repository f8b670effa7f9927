#!/usr/bin/env bash
# OpenVINO's CPU plugin cannot compute a product of matrices that broadcasts its first
# operand where the batch size is dynamic.
#
# Library:   openvino 2026.4.1, with onnx 1.23.2, onnxruntime 1.32.0 and numpy 2.4.6; Linux,
#            x86-64, CPU plugin, INFERENCE_PRECISION_HINT=f32.
# Expected:  MatMul broadcasts the leading axes as numpy does: [1, n, I] times constants
#            [M, I, O] is [M, n, O], as of M heads on the features of one network.
# Happens:   The model converts and compiles without a warning; the first inference raises a
#            RuntimeError about shapes ({3, 0 - ?, 5} and {1, 16, 5}). With a fixed batch, or
#            with the first operand expanded before the product, it is right, as it is in
#            ONNX Runtime in all cases.
# Way round: expand the first operand to [M, n, I] before the product.
# Seen:
#   dynamic batch:     raises
#   fixed batch:       right
#   dynamic, expanded: right
#
# Usage: [PYTHON=python3.12] bash findings/openvino_broadcast_product.sh
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

FILE, M, I, O = "net.onnx", 3, 8, 5
kernels = np.random.default_rng(0).normal(size=(M, I, O)).astype(np.float32)


def write(batch, expand):
    node = helper.make_node
    nodes = [node("Unsqueeze", ["x", "axis"], ["u"])]  # [n, I] -> [1, n, I]
    if expand:
        nodes += [node("Expand", ["u", "wanted"], ["e"])]
    nodes += [node("MatMul", ["e" if expand else "u", "kernels"], ["out"])]
    constants = {"axis": np.array([0]), "kernels": kernels}
    if expand:
        constants["wanted"] = np.array([M, 1, 1])
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [tensor("x", TensorProto.FLOAT, [batch, I])],
        [tensor("out", TensorProto.FLOAT, [M, batch, O])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, FILE)


core = openvino.Core()
x = np.random.default_rng(1).normal(size=(16, I)).astype(np.float32)
seen = {}
for name, batch, expand in (
    ("dynamic batch", "n", False),
    ("fixed batch", 16, False),
    ("dynamic, expanded", "n", True),
):
    write(batch, expand)
    session = onnxruntime.InferenceSession(FILE, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(wanted, x @ kernels, atol=1e-5)
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.convert_model(FILE)
    compiled = core.compile_model(model, "CPU", hints)
    try:
        found = compiled(x)[0]
    except RuntimeError:
        seen[name] = "raises"
    else:
        equal = found.shape == wanted.shape and np.allclose(found, wanted, atol=1e-5)
        seen[name] = "right" if equal else f"wrong, of shape {list(found.shape)}"
    print(f"{name + ':':18} {seen[name]}")
sys.exit(list(seen.values()) != ["raises", "right", "right"])
EOF
