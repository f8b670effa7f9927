"""What makes programs fast on a CPU, and what only a process as a whole can set.

Measured on 2 cores of an AVX2 machine with jax 0.10; `BENCHMARKS.md` has the numbers.
"""

import ctypes
import functools
import sys

import jax

# XLA takes convolutions, products and sums from YNNPACK. Its convolutions of 32
# channels and more ran at half the rate of XLA's own.
_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}

# <malloc.h> of glibc.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


@functools.cache
def compiler_options() -> dict[str, str]:
    """What to give `jax.jit` as `compiler_options`; empty on other backends.

    Empty too where the installed XLA does not know these options.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _OPTIONS


def keep_memory() -> bool:
    """Has this process keep the memory that it frees; True where that can be done.

    XLA asks for all of a program's memory at every call. glibc gives so large a piece
    back to the system when it is freed, which then has to clear every page of the
    next one: a sixth of the time of a step that needs 1.6 GB.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One heap, which pieces of all sizes come from and which never shrinks.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    return all(mallopt(option, value) == 1 for option, value in settings)
