"""Reads Orbax checkpoints of any layout, written elsewhere, as NumPy arrays."""

import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from edp.errors import InputError

# Files of which a directory has one if it holds a tree of arrays: the metadata of
# today's layouts, the arrays of OCDBT, the aggregated leaves of older ones.
_MARKS = ("_METADATA", "manifest.ocdbt", "checkpoint")
# The item that a `CheckpointManager` writes where the caller names none.
_DEFAULT_ITEM = "default"


def find(path: pathlib.Path) -> pathlib.Path | None:
    """Returns the directory of the tree of arrays at or below `path`.

    Args:
      path: what a checkpointer wrote, the directory of a `CheckpointManager` (of
        which the newest step is taken), one of its steps, or an item of one.

    Returns:
      The directory, or None if there is no Orbax checkpoint.

    Raises:
      InputError: for a step of several items none of which is the default.
    """
    if not path.is_dir():
        return None
    if any((path / mark).is_file() for mark in _MARKS):
        return path
    folders = sorted(child for child in path.iterdir() if child.is_dir())
    steps = [folder for folder in folders if folder.name.isdigit()]
    if steps:
        return find(max(steps, key=lambda folder: int(folder.name)))
    items = [f for f in folders if any((f / mark).is_file() for mark in _MARKS)]
    default = [item for item in items if item.name == _DEFAULT_ITEM]
    if len(items) > 1 and not default:
        raise InputError(
            f"{path} holds several trees of arrays; accepted: the path of one of them, "
            f"{', '.join(item.name for item in items)}"
        )
    return next(iter(default or items), None)


def read(directory: pathlib.Path) -> Any:
    """Reads a tree of arrays that `find` returned, with no use of a device.

    The shardings that were saved are not restored: what eight devices wrote can be
    read where there is one.

    Returns:
      Nested dicts and lists of NumPy arrays.
    """
    with ocp.PyTreeCheckpointer() as checkpointer:
        try:
            metadata = checkpointer.metadata(directory)
            tree = getattr(metadata, "item_metadata", metadata)
            tree = getattr(tree, "tree", tree)
        except (FileNotFoundError, ValueError):  # Older layouts have none.
            tree = None
        if tree is None:
            return checkpointer.restore(directory)
        to_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        args = jax.tree.map(lambda _: to_numpy, tree)
        return checkpointer.restore(directory, restore_args=args)
