"""Which kernels this process computes with."""

import contextlib
import ctypes
import functools
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import jax

from edp.models.native import build
from edp.models.native.build import Unavailable
from edp.runtime import background, multihost

KERNELS = (
    "edp_affine",
    "edp_convolve",
    "edp_input_gradient",
    "edp_kernel_gradient",
    "edp_normalise",
    "edp_normalise_gradient",
)

_loading = threading.Lock()
# By the floats of a vector, as the compiler's flags decided.
_INSTRUCTIONS = {8: "avx2", 16: "avx512"}
# Known to `jax.jit`, which traces anew where it differs.
_allowed = jax.make_user_context(True)


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Inside, programs are traced with XLA's own operations alone.

    For programs that run elsewhere or are read without being run.
    """
    with _allowed(False):
        yield


def register(path: pathlib.Path) -> str:
    """Makes the kernels of a compiled library known to XLA.

    Returns:
      The instructions that it was compiled to, 'avx512' or 'avx2'.

    Raises:
      Unavailable: if it cannot be loaded.
    """
    try:
        library = ctypes.CDLL(str(path))
        instructions = _INSTRUCTIONS[library.edp_lanes()]
        targets = {name: jax.ffi.pycapsule(getattr(library, name)) for name in KERNELS}
    except (OSError, AttributeError) as error:
        raise Unavailable(f"{path} cannot be loaded: {error}") from error
    for name, target in targets.items():
        jax.ffi.register_ffi_target(name, target, platform="cpu")
    return instructions


@functools.cache
def _load() -> dict[str, Any]:
    """Loads the kernels at most once; a warning tells why they cannot be had."""
    if os.environ.get("EDP_NATIVE", "1") == "0":
        return {"reason": "EDP_NATIVE=0"}
    try:
        path, compiler = build.library()
        instructions = register(path)
    except Unavailable as error:
        multihost.warn(
            f"the fast CPU kernels are not used, as {error}; XLA's own are, which "
            "compute the same in more time (EDP_NATIVE=0 hides this)"
        )
        return {"reason": str(error)}
    return {"compiler": compiler, "instructions": instructions, "reason": None}


def _loaded() -> dict[str, Any]:
    """Returns `_load`, once also if several threads call it at once."""
    with _loading:
        return _load()


def load_ahead() -> None:
    """Begins to load the kernels in a thread, if this process may use them.

    Compiling them takes seconds, in which the process can do other work.
    """
    if _may_be_used():
        background.begin(_loaded)


def _may_be_used() -> bool:
    return jax.default_backend() == "cpu" and jax.device_count() == 1


def in_use() -> bool:
    """Whether programs traced now use the kernels: on one CPU device, where allowed."""
    return _allowed.value and _may_be_used() and _loaded()["reason"] is None


def status() -> dict[str, Any]:
    """Returns which kernels programs are traced with.

    `kernels` is 'native' or 'xla'; of native ones `compiler` and `instructions`,
    else `reason`.
    """
    if jax.default_backend() != "cpu":
        return {"kernels": "xla", "reason": f"backend {jax.default_backend()}"}
    if jax.device_count() > 1:
        return {"kernels": "xla", "reason": f"{jax.device_count()} devices"}
    facts = dict(_loaded())
    reason = facts.pop("reason")
    if reason is not None:
        return {"kernels": "xla", "reason": reason}
    return {"kernels": "native", **facts}
