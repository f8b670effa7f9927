"""Checkpoint manager with checksums; the only module that uses Orbax."""

import contextlib
import functools
import os
import pathlib
import re
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from edp.errors import InputError
from edp.runtime import checksums, multihost, storage

# The system's error code in messages of TensorStore.
_SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")


class SaveFailed(OSError):
    """A checkpoint could not be written; the message gives the reason in a line."""


class _Manager(ocp.CheckpointManager):
    """A manager that leaves preemption to `multihost.stop_together`.

    Orbax below 0.12.4 raises a RuntimeError in a run of several processes where JAX's
    preemption service is off.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class Checkpoints:
    """Checkpoints of a training run; keeps the last `keep`, restores the newest.

    Each holds a tree of arrays and a small JSON record. A checkpoint is written
    atomically, under a temporary name and renamed; then the checksums of its files are
    added. Older checkpoints are removed only after that rename.

    Attributes:
      blocked_seconds: time that callers have waited in methods.
    """

    def __init__(self, directory: pathlib.Path, keep: int = 2):
        """Opens the directory, and moves damaged newest checkpoints aside."""
        self._directory = storage.absolute(directory)
        self._pending: int | None = None  # a step without checksums yet
        self._hashing: threading.Thread | None = None
        self._hashing_error: Exception | None = None
        self.blocked_seconds = 0.0
        while (step := self.newest()) is not None:
            what = checksums.damage(self._directory / str(step))
            if what is None:
                break
            self._set_aside(step, what)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        with self._one_error():
            self._manager = _Manager(self._directory, options=options)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        try:
            self.finish()
            with self._one_error():
                self._manager.close()
        except SaveFailed:
            if error is None:
                raise

    def save(self, step: int, tree: Any, record: dict[str, Any]) -> None:
        """Copies the tree and the record, and writes them asynchronously.

        Raises:
          SaveFailed: if this or the previous checkpoint cannot be written.
        """
        self.finish()
        with self._blocking(), self._one_error():
            if step in self._manager.all_steps():
                return
            # An object store has no directories.
            remote = storage.is_remote(self._directory)
            if not remote and not self._directory.is_dir():
                raise SaveFailed(f"{self._directory} is gone; nothing can be saved")
            args = ocp.args.Composite(
                tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record)
            )
            self._manager.save(step, args=args)
            self._pending = step

    def poll(self) -> None:
        """Starts the checksums of a checkpoint once it is written; never waits.

        Raises:
          SaveFailed: if it could not be written.
        """
        if self._pending is None or self._hashing is not None:
            return
        if not self._manager.is_saving_in_progress():
            self._start_checksums()

    def finish(self) -> None:
        """Waits until the last checkpoint is on disk, with its checksums.

        Raises:
          SaveFailed: if it could not be written.
        """
        if self._pending is None:
            return
        with self._blocking():
            if self._hashing is None:
                self._start_checksums()
            self._hashing.join()
            error, self._hashing_error = self._hashing_error, None
            self._hashing = self._pending = None
            if error is not None:
                with self._one_error():
                    raise error

    def restore_latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """Restores the newest checkpoint's tree and record; None without a checkpoint.

        Moves aside a checkpoint that cannot be read, and restores the one before.

        Args:
          like: a tree of arrays (or of their shapes, dtypes and shardings) of the
            structure that was saved; the result has its shardings.

        Raises:
          InputError: if the checkpoint is intact, but has another structure.
        """
        self.finish()
        args = ocp.args.Composite(
            tree=ocp.args.StandardRestore(_abstract(like)),
            record=ocp.args.JsonRestore(),
        )
        while (step := self.newest()) is not None:
            directory, why = self._directory / str(step), None
            try:
                with _interrupts():
                    restored = self._manager.restore(step, args=args)
            except Exception as error:  # damage can raise in any layer
                why = _reason(error)
            if not multihost.any_of(why is not None):
                return restored.tree, restored.record
            self._refuse_other_structure(step, like)
            if multihost.from_first(checksums.exists(directory)):
                raise InputError(f"{directory} cannot be read: {why}")
            self._set_aside(step, f"it cannot be read: {why}")
            self._manager.reload()
        return None

    def newest(self) -> int | None:
        """Returns the newest checkpoint's step, as process 0 sees it, or None."""
        steps = []
        if multihost.is_first() and self._directory.is_dir():
            written = [p for p in self._directory.iterdir() if p.name.isdigit()]
            if storage.is_remote(self._directory):  # a marker instead of a rename
                written = [p for p in written if (p / "commit_success.txt").exists()]
            steps = [int(path.name) for path in written]
        return multihost.from_first(max(steps, default=None))

    def _set_aside(self, step: int, what: str) -> None:
        """Moves a damaged checkpoint to the directory `damaged`."""
        path = self._directory / str(step)
        aside = self._directory.with_name("damaged") / path.name
        if multihost.is_first() and storage.is_remote(path):
            path.rmtree()  # objects cannot be moved, and the checkpoint is unusable
        elif multihost.is_first():
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        before = self.newest()
        start = "the start" if before is None else f"step {before}"
        multihost.warn(f"{path} is damaged: {what}; resuming from {start}")

    def _refuse_other_structure(self, step: int, like: Any) -> None:
        """Raises an InputError if a checkpoint's metadata has another structure."""
        try:
            with _interrupts():
                found = shapes(self._manager.item_metadata(step).tree.tree)
        except Exception:  # as above
            return
        wanted = shapes(like)
        differ = [k for k in found.keys() | wanted if found.get(k) != wanted.get(k)]
        if differ:
            key = min(differ)
            raise InputError(
                f"{self._directory / str(step)} has another structure, perhaps that of "
                f"another version of this code: {key} is {found.get(key)} in it and "
                f"{wanted.get(key)} here; use that version, or remove {self._directory}"
            )

    def _start_checksums(self) -> None:
        """Waits until the last checkpoint is written, and starts its checksums."""
        with self._one_error():
            self._manager.wait_until_finished()
        directory = self._directory / str(self._pending)

        def write_checksums():
            try:
                checksums.write(directory)
            except Exception as error:
                self._hashing_error = error

        self._hashing = threading.Thread(target=write_checksums)
        self._hashing.start()

    @contextlib.contextmanager
    def _blocking(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.blocked_seconds += time.monotonic() - started

    @contextlib.contextmanager
    def _one_error(self) -> Iterator[None]:
        """Turns any error into a `SaveFailed`; drops the pending checkpoint."""
        try:
            with _interrupts():
                yield
        except SaveFailed:
            raise
        except Exception as error:
            self._pending = self._hashing = None
            raise SaveFailed(
                f"cannot write to {self._directory}: {_reason(error)}; the checkpoints "
                "in it are kept"
            ) from error


def save_variables(directory: pathlib.Path, variables: Any) -> None:
    """Writes a stage's finished variables, with checksums; replaces unfinished ones.

    Raises:
      SaveFailed: if they cannot be written.
    """
    try:
        with _interrupts(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(storage.absolute(directory), variables, force=True)
        checksums.write(directory)
    except Exception as error:
        raise SaveFailed(f"cannot write {directory}: {_reason(error)}") from error


def load_variables(directory: pathlib.Path, like: Any) -> Any:
    """Reads variables of `save_variables`; `like` is as in `restore_latest`.

    Raises:
      InputError: if a file is damaged; names it.
    """
    check_variables(directory)
    with _interrupts(), ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(storage.absolute(directory), _abstract(like))


def check_variables(directory: pathlib.Path) -> None:
    """Verifies the checksums of variables of `save_variables`.

    Raises:
      InputError: if a file is damaged; names it.
    """
    what = checksums.damage(directory)
    if what is not None:
        raise InputError(f"{directory} is damaged: {what}")


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Raises a KeyboardInterrupt that the library wrapped in another error."""
    try:
        yield
    except Exception as error:
        inner: BaseException | None = error
        while inner is not None:
            if isinstance(inner, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            inner = inner.__cause__ or inner.__context__
        raise


def _reason(error: BaseException) -> str:
    """Returns the system's message of an error, or else the error's first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    found = _SYSTEM_ERROR.search(str(error))
    if found:
        return os.strerror(int(found[1]))
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError):
        return _reason(cause)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each leaf by its path, such as `params.head.bias`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    separated = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
    return {separated(path): tuple(leaf.shape) for path, leaf in leaves}


def read_shapes(directory: pathlib.Path) -> dict[str, tuple[int, ...]] | None:
    """Returns the `shapes` of variables of `save_variables`; None without a file."""
    tree = _metadata(directory)
    return None if tree is None else shapes(tree)


def load_arrays(directory: pathlib.Path) -> Any:
    """Reads variables of `save_variables` as NumPy arrays, without a device."""
    to_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    with _interrupts(), ocp.PyTreeCheckpointer() as checkpointer:
        args = jax.tree.map(lambda _: to_numpy, _metadata(directory))
        return checkpointer.restore(storage.absolute(directory), restore_args=args)


def _metadata(directory: pathlib.Path) -> Any:
    if not (directory / "_CHECKPOINT_METADATA").exists():
        return None
    with _interrupts(), ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(storage.absolute(directory))
    found = metadata.item_metadata
    return None if found is None else found.tree


def _abstract(tree: Any) -> Any:
    device = jax.local_devices()[0]
    default = jax.sharding.SingleDeviceSharding(device)

    def leaf(x):
        sharding = getattr(x, "sharding", None) or default
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)
