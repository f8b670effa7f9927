"""Saving and restoring trees of arrays; the one place that knows Orbax."""

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

# Where TensorStore's messages tell the system's error.
_SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")


class SaveFailed(OSError):
    """A checkpoint could not be written; the message is a line that says why."""


class Checkpoints:
    """The checkpoints of a training run: the last `keep`, newest first to restore.

    Each holds a tree of arrays and a small JSON record beside it. A checkpoint
    is written under another name and renamed, so that one cut off in the middle
    is never taken for a whole one; then the sums of its files are put into it.
    Older ones are removed only after that rename.

    Attributes:
      blocked_seconds: for how long callers have waited here.
    """

    def __init__(self, directory: pathlib.Path, keep: int = 2):
        """Opens the directory; a newest checkpoint that is damaged is set aside."""
        self._directory = storage.absolute(directory)
        self._unsigned: int | None = None  # the step being written
        self._signing: threading.Thread | None = None
        self._signing_error: Exception | None = None
        self.blocked_seconds = 0.0
        while (step := self.newest()) is not None:
            what = checksums.damage(self._directory / str(step))
            if what is None:
                break
            self._set_aside(step, what)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        with self._one_error():
            self._manager = ocp.CheckpointManager(self._directory, options=options)

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
        """Copies what is to be written, which happens while the caller goes on.

        Raises:
          SaveFailed: if this or the checkpoint before it cannot be written.
        """
        self.finish()
        with self._blocking(), self._one_error():
            if step in self._manager.all_steps():
                return
            # A store of objects has no directories.
            remote = storage.is_remote(self._directory)
            if not remote and not self._directory.is_dir():
                raise SaveFailed(f"{self._directory} is gone; nothing can be saved")
            args = ocp.args.Composite(
                tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record)
            )
            self._manager.save(step, args=args)
            self._unsigned = step

    def poll(self) -> None:
        """Has the sums taken of a checkpoint once it is written; costs nothing.

        Raises:
          SaveFailed: if it could not be written.
        """
        if self._unsigned is None or self._signing is not None:
            return
        if not self._manager.is_saving_in_progress():
            self._sign()

    def finish(self) -> None:
        """Waits until all that was saved is on disk, with its sums.

        Raises:
          SaveFailed: if it could not be written.
        """
        if self._unsigned is None:
            return
        with self._blocking():
            if self._signing is None:
                self._sign()
            self._signing.join()
            error, self._signing_error = self._signing_error, None
            self._signing = self._unsigned = None
            if error is not None:
                with self._one_error():
                    raise error

    def restore_latest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint's tree and record, or None where there is none.

        One that cannot be read is set aside, and the one before it is taken.

        Args:
          like: a tree of arrays (or of their shapes, dtypes and shardings) of
            the structure that was saved; the result is placed as it is.

        Raises:
          InputError: if it is whole, but not of that structure.
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
            except Exception as error:  # Damage can show in any layer under it.
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
        """The step of the newest checkpoint on disk, as process 0 finds it, or None."""
        steps = []
        if multihost.is_first() and self._directory.is_dir():
            written = [p for p in self._directory.iterdir() if p.name.isdigit()]
            if storage.is_remote(self._directory):  # nothing is renamed to be whole
                written = [p for p in written if (p / "commit_success.txt").exists()]
            steps = [int(path.name) for path in written]
        return multihost.from_first(max(steps, default=None))

    def _set_aside(self, step: int, what: str) -> None:
        """Moves a damaged checkpoint to where none is looked for."""
        path = self._directory / str(step)
        aside = self._directory.with_name("damaged") / path.name
        if multihost.is_first() and storage.is_remote(path):
            path.rmtree()  # what it holds cannot be moved, and is lost already
        elif multihost.is_first():
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        before = self.newest()
        goes_on = "the start" if before is None else f"step {before}"
        multihost.warn(f"{path} is damaged: {what}; going on from {goes_on}")

    def _refuse_other_structure(self, step: int, like: Any) -> None:
        """Raises an InputError if a checkpoint says itself to be of another tree."""
        try:
            with _interrupts():
                found = shapes(self._manager.item_metadata(step).tree.tree)
        except Exception:  # As above.
            return
        wanted = shapes(like)
        differ = [k for k in found.keys() | wanted if found.get(k) != wanted.get(k)]
        if differ:
            key = min(differ)
            raise InputError(
                f"{self._directory / str(step)} is of another structure, perhaps of "
                f"another version of this code: {key} is {found.get(key)} in it and "
                f"{wanted.get(key)} here; use that version, or remove {self._directory}"
            )

    def _sign(self) -> None:
        """Begins to take the sums; the last step's writing is over, or is awaited."""
        with self._one_error():
            self._manager.wait_until_finished()
        directory = self._directory / str(self._unsigned)

        def sign():
            try:
                checksums.write(directory)
            except Exception as error:
                self._signing_error = error

        self._signing = threading.Thread(target=sign)
        self._signing.start()

    @contextlib.contextmanager
    def _blocking(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.blocked_seconds += time.monotonic() - started

    @contextlib.contextmanager
    def _one_error(self) -> Iterator[None]:
        """Whatever fails in writing is a `SaveFailed`, after which none is awaited."""
        try:
            with _interrupts():
                yield
        except SaveFailed:
            raise
        except Exception as error:
            self._unsigned = self._signing = None
            raise SaveFailed(
                f"cannot write to {self._directory}: {_reason(error)}; the checkpoints "
                "in it are kept"
            ) from error


def save_variables(directory: pathlib.Path, variables: Any) -> None:
    """Writes the finished variables of a stage, replacing unfinished ones.

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
    """Reads what `save_variables` wrote; `like` is as in `restore_latest`.

    Raises:
      InputError: if a file is not as it was written; names it.
    """
    check_variables(directory)
    with _interrupts(), ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(storage.absolute(directory), _abstract(like))


def check_variables(directory: pathlib.Path) -> None:
    """Compares the files that `save_variables` wrote with their sums.

    Raises:
      InputError: if one is not as it was written; names it.
    """
    what = checksums.damage(directory)
    if what is not None:
        raise InputError(f"{directory} is damaged: {what}")


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Lets a KeyboardInterrupt through of which the library made another error."""
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
    """What the system said of an error, or else its own first line."""
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
