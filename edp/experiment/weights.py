"""Readers of one network's weights, in the formats that JAX users save them in.

`read` finds the format by trying `READERS`, finds the model's variables in what was
saved (variables, a `TrainState`, the state of an NNX module), and checks each leaf. A
new format is a function here and a line in `READERS`.
"""

import importlib
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from edp.errors import InputError
from edp.runtime import checkpoint, checksums, orbax_files
from edp.runtime.stage import read_record

ACCEPTED = (
    "a directory that Orbax wrote (of a checkpointer or a CheckpointManager), a "
    ".msgpack file of flax.serialization, an .npz or .safetensors file of named "
    "arrays, or WORKDIR/teachers#m, network m = 0, 1, ... of the teachers of a run"
)

# How many of a member's faulty leaves an error names.
_MAX_FAULTS = 3
_PARAMS = "params"
# Collections that decide what a network computes: never left out in silence.
_COLLECTIONS = (_PARAMS, "batch_stats")
# Entries of a state of training, beside the variables.
_TRAINING = ("opt_state", "step")
# States of random streams in NNX modules.
_STREAMS = "rngs"

# Keys of nested dicts and lists, from the root to a leaf.
_Path = tuple[str, ...]


class Weights(NamedTuple):
    """The variables of a network, as read.

    Attributes:
      variables: of the structure, shapes and dtypes of the model's, NumPy arrays.
      description: the format and what was taken, in a line.
    """

    variables: Any
    description: str


def read(name: str, path: pathlib.Path, like: Any) -> Weights:
    """Reads the weights of one network.

    Args:
      name: of the network, for messages.
      path: a file or directory in one of the formats `ACCEPTED`.
      like: the shapes and dtypes of the variables of the configured model.

    Raises:
      InputError: if no reader takes the path, or for leaves that are missing,
        surplus, of another shape, not of floating-point numbers or not finite.
    """
    for kind, reader in READERS.items():
        try:
            tree = reader(path)
        except InputError as error:
            raise InputError(f"{name}: {error}") from error
        except Exception as error:  # Damage can show in any layer of a library.
            message = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise InputError(f"{name} cannot be read as {kind}: {message}") from error
        if tree is not None:
            break
    else:
        raise InputError(f"{name} is no checkpoint of variables; accepted: {ACCEPTED}")
    wanted = _flatten(like)
    taken, left = _select(name, _without_value(_flatten(tree)), wanted)
    faults = list(_faults(taken, wanted))
    if faults:
        more = len(faults) - _MAX_FAULTS
        message = [*faults[:_MAX_FAULTS], *([f"and {more} more"] if more > 0 else [])]
        raise InputError(
            f"{name} does not fit the configured model: {'; '.join(message)}"
        )
    leaves = [np.asarray(taken[p]).astype(leaf.dtype) for p, leaf in wanted.items()]
    collections = ", ".join(sorted({path[0] for path in wanted}))
    description = f"{collections} of {kind}" + (f"; left out: {left}" if left else "")
    return Weights(jax.tree.unflatten(jax.tree.structure(like), leaves), description)


# --- Formats: path -> nested dicts and lists of arrays, or None for another format ----


def _orbax(path: pathlib.Path) -> Any | None:
    directory = orbax_files.find(path)
    if directory is None:
        return None
    if checksums.exists(path):
        checkpoint.check_variables(path)
    return orbax_files.read(directory)


def _member(path: pathlib.Path) -> Any | None:
    stage, separator, number = path.name.rpartition("#")
    directory = path.parent / stage
    if not separator or not number.isdecimal():
        return None
    if (record := read_record(directory)) is None:
        return None
    if groups := record.get("groups"):
        raise InputError(
            f"{directory} has its networks in groups; accepted: {directory}/groups/"
            f"GROUP#m, with GROUP one of {', '.join(groups)}"
        )
    stacked = _orbax(directory / "variables")
    if stacked is None:
        raise InputError(
            f"{directory / 'variables'} is missing, though its stage is complete; "
            "accepted: the teachers of a run with their variables"
        )
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(stacked) if leaf.ndim}
    if int(number) >= max(sizes):
        raise InputError(
            f"{path} is not among the {max(sizes)} networks of {directory}; accepted: "
            f"#0 to #{max(sizes) - 1}"
        )
    return jax.tree.map(lambda leaf: leaf[int(number)], stacked)


def _npz(path: pathlib.Path) -> Any | None:
    if path.suffix != ".npz" or not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        return _nested({name: file[name] for name in file.files})


def _safetensors(path: pathlib.Path) -> Any | None:
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        library = importlib.import_module("safetensors.numpy")
    except ImportError as error:
        raise InputError(
            f"{path} needs the package safetensors; accepted: pip install "
            "safetensors, or another format"
        ) from error
    return _nested(library.load_file(path))


def _msgpack(path: pathlib.Path) -> Any | None:
    if not path.is_file() or path.suffix not in (".msgpack", ".flax", ""):
        return None
    tree = flax.serialization.msgpack_restore(path.read_bytes())
    return tree if isinstance(tree, dict) else None


READERS: dict[str, Callable[[pathlib.Path], Any | None]] = {
    "a network of a run": _member,
    "an Orbax checkpoint": _orbax,
    "an .npz file": _npz,
    "a safetensors file": _safetensors,
    "a msgpack file": _msgpack,
}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Names like `params/head/bias`, `params.head.bias` or `['params']['head']...`."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = (part for part in re.split(r"[./\[\]'\"]+", name) if part)
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree


# --- Variables in what was saved --------------------------------------------------


def _flatten(tree: Any) -> dict[_Path, Any]:
    """Leaves by path; None is no leaf."""

    def walk(node: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
        if isinstance(node, Mapping):
            for key in sorted(node, key=str):
                yield from walk(node[key], (*path, str(key)))
        elif isinstance(node, list | tuple):
            for i, child in enumerate(node):
                yield from walk(child, (*path, str(i)))
        elif node is not None:
            yield path, node

    return dict(walk(tree, ()))


def _without_value(flat: dict[_Path, Any]) -> dict[_Path, Any]:
    """Drops the last key `value`, in which NNX variables save their array."""
    return {p[:-1] if p[-1:] == ("value",) else p: leaf for p, leaf in flat.items()}


def _select(
    name: str, found: dict[_Path, Any], wanted: dict[_Path, Any]
) -> tuple[dict[_Path, Any], str]:
    """Takes the collections out of what was saved.

    Returns:
      The leaves by their paths in the variables, with those that the model lacks; and
      the names of what else was saved.
    """
    prefix = _prefix(name, found, _PARAMS)
    if prefix is None:
        return _select_bare(found, wanted)
    root = prefix[: prefix.index(_PARAMS)]
    taken, rest = {}, dict(found)
    for collection in {path[0] for path in wanted}.union(_COLLECTIONS):
        prefix = _prefix(name, rest, collection)
        for path in [p for p in rest if prefix and p[: len(prefix)] == prefix]:
            taken[(collection, *path[len(prefix) :])] = rest.pop(path)
    if root or {path[0] for path in rest}.intersection(_TRAINING):
        return taken, _names(rest, root)
    # Variables and nothing else: what the model lacks is a fault.
    return taken | rest, ""


def _prefix(name: str, found: Mapping[_Path, Any], collection: str) -> _Path | None:
    """The path of a collection: the shortest, or `params` in `params`."""
    prefixes = {
        path[: i + 1]
        for path in found
        for i, key in enumerate(path[:-1])
        if key == collection and "opt_state" not in path[:i]
    }
    if not prefixes:
        return None
    length = min(map(len, prefixes))
    shortest = sorted(p for p in prefixes if len(p) == length)
    if len(shortest) > 1:
        raise InputError(
            f"{name} holds several networks: {', '.join(map('.'.join, shortest))}; "
            "accepted: a checkpoint of one"
        )
    (prefix,) = shortest
    return (*prefix, collection) if (*prefix, collection) in prefixes else prefix


def _select_bare(
    found: dict[_Path, Any], wanted: dict[_Path, Any]
) -> tuple[dict[_Path, Any], str]:
    """Takes leaves without collections, as the parameters alone or NNX save them."""
    collections = sorted({path[0] for path in wanted}, key=lambda c: c != _PARAMS)
    taken, left = {}, {}
    for path, leaf in found.items():
        if _STREAMS in path:
            left[path] = leaf
            continue
        own = [c for c in collections if (c, *path) in wanted]
        taken[((own or [_PARAMS])[0], *path)] = leaf
    return taken, _names(left)


def _names(paths: Iterable[_Path], root: _Path = ()) -> str:
    """The entries beside the collections at `root`, and those above."""
    depth = len(root)
    names = {path[: depth + 1] if path[:depth] == root else path[:1] for path in paths}
    return ", ".join(sorted(map(".".join, names)))


def _faults(found: Mapping[_Path, Any], wanted: Mapping[_Path, Any]) -> Iterator[str]:
    for path, like in wanted.items():
        leaf = ".".join(path)
        if path not in found:
            yield f"{leaf} is missing"
            continue
        array = np.asarray(found[path])
        if array.shape != like.shape:
            yield f"{leaf} has shape {array.shape} and should have {like.shape}"
        elif not jnp.issubdtype(array.dtype, jnp.floating):
            yield f"{leaf} is of {array.dtype} and should be of floating-point numbers"
        elif not np.isfinite(array.astype(like.dtype)).all():
            yield f"{leaf} is not finite in {like.dtype}"
    for path in sorted(found.keys() - wanted.keys()):
        yield f"{'.'.join(path)} is not a variable of it"
