"""Reads the communication of devices from compiled programs."""

import math
import re
from typing import NamedTuple

import numpy as np

_KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
_INSTRUCTION = re.compile(rf"= (.+?) ({'|'.join(_KINDS)})(?:-start)?\(")
_SHAPE = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")


class Collective(NamedTuple):
    """Communicating instruction of a program.

    Attributes:
      kind: its HLO name, such as 'all-reduce'.
      shapes: shapes of the resulting arrays on one device.
      num_bytes: bytes of all of them.
      axes: mesh axes along which devices communicate, sorted.
      where: the operation of the source.
    """

    kind: str
    shapes: list[tuple[int, ...]]
    num_bytes: int
    axes: tuple[str, ...]
    where: str


def collectives(compiled, mesh) -> list[Collective]:
    """Returns the communication of a compiled function over the axes of `mesh`."""
    return parse(compiled.as_text(), dict(mesh.shape))


def parse(text: str, mesh_shape: dict[str, int]) -> list[Collective]:
    """Returns the communication in HLO `text`, for a mesh of axis names and sizes."""
    found = []
    for line in text.splitlines():
        match = _INSTRUCTION.search(line)
        if match is None:
            continue
        shapes, num_bytes = [], 0
        for letters, bits, dims in _SHAPE.findall(match[1]):
            shape = tuple(int(d) for d in dims.split(",") if d)
            shapes.append(shape)
            num_bytes += math.prod(shape) * (1 if letters == "pred" else int(bits) // 8)
        groups = _groups(line, math.prod(mesh_shape.values()))
        axes = sorted({axis for group in groups for axis in _axes(group, mesh_shape)})
        where = re.search(r'op_name="([^"]*)"', line)
        where = where[1] if where else ""
        found.append(Collective(match[2], shapes, num_bytes, tuple(axes), where))
    return found


def _axes(group, mesh_shape: dict[str, int]) -> list[str]:
    """Returns the axes along which the devices of a group differ."""
    places = np.unravel_index(group, tuple(mesh_shape.values()))
    return [
        name
        for name, place in zip(mesh_shape, places, strict=True)
        if len(set(place.tolist())) > 1
    ]


def _groups(line: str, num_devices: int) -> list[list[int]]:
    """Returns the groups of communicating devices, in any notation of HLO."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", line):
        return _listed(pairs[1])
    start = line.index("replica_groups=") + len("replica_groups=")
    rest = line[start:]
    if rest.startswith("{}"):
        return [list(range(num_devices))]
    if rest.startswith("{{"):
        return _listed(rest[1 : rest.index("}}") + 1])
    if match := re.match(r"\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", rest):
        return _iota(match[2]).reshape(_ints(match[1])).tolist()
    pattern = r"mesh\[(.*?)\](?:, device_ids=\((.*?\))\))? \{(.*?)\}"
    if match := re.match(pattern, rest):
        names = re.findall(r"'(\w+)'=", match[1])
        sizes = [int(size) for size in re.findall(r"=(\d+)", match[1])]
        chosen = re.findall(r"'(\w+)'(:)?", match[3])
        if not any(part for _, part in chosen):
            ids = _iota(match[2]) if match[2] else np.arange(num_devices)
            along = [names.index(name) for name, _ in chosen]
            ids = np.moveaxis(ids.reshape(sizes), along, range(-len(along), 0))
            return ids.reshape(-1, math.prod(sizes[i] for i in along)).tolist()
    raise ValueError(f"replica groups in a notation unknown here: {rest[:200]}")


def _iota(text: str) -> np.ndarray:
    """Parses '[4,2]T(1,0)': 0, 1, ... in that shape, transposed that way."""
    shape, _, order = text.partition("T")
    ids = np.arange(math.prod(_ints(shape))).reshape(_ints(shape))
    return ids.transpose(_ints(order)) if order else ids


def _ints(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _listed(text: str) -> list[list[int]]:
    return [_ints(group) for group in re.findall(r"\{([\d,]*)\}", text)]
