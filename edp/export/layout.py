"""Removes transpositions of constants from ONNX models."""

from collections.abc import Iterator
from typing import Any


def transpose_constants(model: bytes) -> bytes:
    """Returns a model that repeats members' factors in the layout they are used in.

    ONNX convolves in [B, C, H, W]. The factors [M, 1, 1, C] of a BatchEnsemble are
    constants, repeated for each image, and ONNX Runtime transposes what it repeats:
    Transpose(Tile(factors)) becomes Tile(transposed factors), where Tile repeats the
    first axis only and Transpose leaves this axis in its place.
    """
    import onnx
    from onnx import numpy_helper

    loaded = onnx.load_model_from_string(model)
    graph = loaded.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {array.name: array for array in graph.initializer}
    for transpose in [node for node in graph.node if node.op_type == "Transpose"]:
        tile = makers.get(transpose.input[0])
        if tile is None or tile.op_type != "Tile" or tile.input[0] not in constants:
            continue
        values = numpy_helper.to_array(constants[tile.input[0]])
        (order,) = (list(one.ints) for one in transpose.attribute)
        if order[0] != 0 or not _repeats_first_axis(tile, makers, constants):
            continue
        name = f"{transpose.output[0]}_constant"
        transposed = values.transpose(order).copy()
        graph.initializer.append(numpy_helper.from_array(transposed, name))
        transpose.op_type = "Tile"
        transpose.input[:] = [name, tile.input[1]]
        del transpose.attribute[:]
    _remove_unused(graph)
    return loaded.SerializeToString()


def _repeats_first_axis(tile: Any, makers: Any, constants: Any) -> bool:
    """Returns whether a Tile repeats no axis but the first."""
    from onnx import numpy_helper

    def is_one(name):
        array = constants.get(name)
        return array is not None and (numpy_helper.to_array(array) == 1).all()

    if tile.input[1] in constants:
        repeats = numpy_helper.to_array(constants[tile.input[1]])
        return bool((repeats[1:] == 1).all())
    repeats = makers.get(tile.input[1])
    return (
        repeats is not None
        and repeats.op_type == "Concat"
        and all(map(is_one, repeats.input[1:]))
    )


def _remove_unused(graph: Any) -> None:
    """Removes nodes and constants that no output depends on."""
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(_inputs(node))
    for array in [one for one in graph.initializer if one.name not in needed]:
        graph.initializer.remove(array)


def _inputs(node: Any) -> Iterator[str]:
    """Yields the names that a node reads, and those that its subgraphs read."""
    yield from node.input
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
        for graph in graphs:
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from _inputs(inner)
