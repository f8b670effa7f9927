"""Saving and restoring trees of arrays; the one place that knows Orbax."""

import functools
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from edp import paths


class Checkpoints:
    """The checkpoints of a training run: the last `keep`, newest first to restore.

    Each holds a tree of arrays and a small JSON record beside it. A checkpoint
    is written under another name and renamed, so that one cut off in the middle
    is never taken for a whole one.
    """

    def __init__(self, directory: pathlib.Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(
            paths.absolute(directory), options=options
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._manager.close()

    def save(self, step: int, tree: Any, record: dict[str, Any]) -> None:
        """Writes a checkpoint and waits until it is on disk.

        Waiting matters: the caller's next step reuses the arrays' memory.
        """
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(
            tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record)
        )
        self._manager.save(step, args=args)
        self._manager.wait_until_finished()

    def restore_latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint's tree and record, or None where there is none.

        Args:
          like: a tree of arrays (or of their shapes, dtypes and shardings) of
            the structure that was saved; the result is placed as it is.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        args = ocp.args.Composite(
            tree=ocp.args.StandardRestore(_abstract(like)),
            record=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(step, args=args)
        return restored.tree, restored.record


def save_variables(directory: pathlib.Path, variables: Any) -> None:
    """Writes the finished variables of a stage, replacing unfinished ones."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(paths.absolute(directory), variables, force=True)


def load_variables(directory: pathlib.Path, like: Any) -> Any:
    """Reads what `save_variables` wrote; `like` is as in `restore_latest`."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(paths.absolute(directory), _abstract(like))


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each leaf by its path, such as `params.head.bias`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    separated = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
    return {separated(path): tuple(leaf.shape) for path, leaf in leaves}


def read_shapes(directory: pathlib.Path) -> dict[str, tuple[int, ...]] | None:
    """The `shapes` of what `save_variables` wrote; None where there is no such."""
    tree = _metadata(directory)
    return None if tree is None else shapes(tree)


def load_arrays(directory: pathlib.Path) -> Any:
    """Reads what `save_variables` wrote as NumPy arrays, with no use of a device."""
    to_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    with ocp.PyTreeCheckpointer() as checkpointer:
        args = jax.tree.map(lambda _: to_numpy, _metadata(directory))
        return checkpointer.restore(paths.absolute(directory), restore_args=args)


def _metadata(directory: pathlib.Path) -> Any:
    if not (directory / "_CHECKPOINT_METADATA").exists():
        return None
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(paths.absolute(directory))
    found = metadata.item_metadata
    return None if found is None else found.tree


def _abstract(tree: Any) -> Any:
    device = jax.local_devices()[0]
    default = jax.sharding.SingleDeviceSharding(device)

    def leaf(x):
        sharding = getattr(x, "sharding", None) or default
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)
