"""Tests that exported graphs have few transpositions and repetitions."""

import collections

import numpy as np
import pytest
from export_runtimes import require
from small_programs import small_program

from edp.export import layout, onnx_graph, to_litert


def operators(program):
    onnx = pytest.importorskip("onnx")
    names = ["probs", "max_probability", "mutual_information"]
    model = onnx.load_model_from_string(onnx_graph.convert(program, (8, 8, 1), names))
    return collections.Counter(node.op_type for node in model.graph.node)


@pytest.mark.long
def test_the_graph_has_one_network_without_normalisation():
    require("onnx")
    program = small_program(members=2)
    before, after = operators(program.__wrapped__), operators(program)
    assert (before["Conv"], after["Conv"]) == (6, 3)
    assert after["Sub"] < before["Sub"]
    assert sum(after.values()) < 0.65 * sum(before.values())
    assert after["Transpose"] < before["Transpose"]
    # Of the image, of what the dense layer takes, and of the members' logits.
    assert after["Transpose"] == 3
    # Two factors in each of four layers, and the biases of the last.
    assert after["Tile"] == 2 * 4 + 1 and after["Expand"] <= 1


@pytest.mark.long
def test_litert_keeps_the_layout(tmp_path):
    require("litert")
    from ai_edge_litert import interpreter

    model = to_litert.convert(small_program(), (8, 8, 1), ["probs"], 1, "float32")
    found = interpreter.Interpreter(model_content=model)._get_ops_details()
    counts = collections.Counter(operation["op_name"] for operation in found)
    assert counts["CONV_2D"] + counts["DEPTHWISE_CONV_2D"] == 3
    assert not counts["TRANSPOSE"] + counts["BROADCAST_TO"]


def test_factors_are_transposed_before_they_are_repeated():
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    factors = np.arange(6, dtype=np.float32).reshape(2, 1, 1, 3)
    arrays = {"factors": factors, "one": np.int64([1])}
    make = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            make("Concat", ["times", "one", "one", "one"], ["repeats"], axis=0),
            make("Tile", ["factors", "repeats"], ["rows"]),
            make("Transpose", ["rows"], ["found"], perm=[0, 3, 1, 2]),
        ],
        "",
        [onnx.helper.make_tensor_value_info("times", onnx.TensorProto.INT64, [1])],
        [onnx.helper.make_tensor_value_info("found", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    model = onnx.helper.make_model(graph).SerializeToString()
    found = onnx.load_model_from_string(layout.transpose_constants(model))
    assert [node.op_type for node in found.graph.node] == ["Concat", "Tile"]
    (rows,) = reference.ReferenceEvaluator(found).run(None, {"times": np.int64([2])})
    wanted = np.tile(factors.transpose(0, 3, 1, 2), (2, 1, 1, 1))
    np.testing.assert_array_equal(rows, wanted)
    assert found.graph.node[1].output[0] == "found"


def test_what_a_branch_reads_is_kept():
    onnx = pytest.importorskip("onnx")
    make = onnx.helper.make_node
    number = onnx.TensorProto.FLOAT

    def branch(name):
        output = onnx.helper.make_tensor_value_info("y", number, [1])
        nodes = [make("Add", [name, "halved"], ["y"])]
        return onnx.helper.make_graph(nodes, name, [], [output])

    outer = [
        make("Div", ["one", "two"], ["halved"]),
        make("Div", ["two", "one"], ["unused"]),
        make(
            "If",
            ["condition"],
            ["found"],
            then_branch=branch("one"),
            else_branch=branch("two"),
        ),
    ]
    graph = onnx.helper.make_graph(
        outer,
        "",
        [onnx.helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, [])],
        [onnx.helper.make_tensor_value_info("found", number, [1])],
        [
            onnx.numpy_helper.from_array(np.float32([value]), name)
            for name, value in (("one", 1), ("two", 2), ("three", 3))
        ],
    )
    model = onnx.helper.make_model(graph).SerializeToString()
    found = onnx.load_model_from_string(layout.transpose_constants(model)).graph
    assert [node.op_type for node in found.node] == ["Div", "If"]
    assert [array.name for array in found.initializer] == ["one", "two"]
