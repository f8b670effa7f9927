"""What makes programs fast on a CPU, and what only a process as a whole can set.

Measured on 2 cores of an AVX2 machine with jax 0.10; `BENCHMARKS.md` has the numbers.
"""

import ctypes
import functools
import importlib.util
import sys
from importlib import metadata

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
    """Has this process keep the memory that it frees, where JAX computes on the CPU.

    XLA asks for all of a program's memory at every call. glibc gives so large a piece
    back to the system when it is freed, which then has to clear every page of the
    next one: a sixth of the time of a step that needs 1.6 GB.

    To be called before JAX looks for devices (before the first array): threads that
    exist by then keep heaps of their own, and each step has its page faults again. So
    the backend is taken from `jax_platforms` and the installed plugins; with the
    plugin of an accelerator on a machine without one, set `JAX_PLATFORMS=cpu`.

    A step in which the heap grows is slower: XLA may free what a call took after the
    next call has asked for as much. Of 16 steps of WRN-28-1 (M=4, batch 64) it was
    one, with 180,000 page faults, 2.0 s of system time and 5.6 s instead of 3.6; of 50
    with M=2 and batch 24 the 7th and the 18th. What has grown is used from then on.

    Threads that decode images share the heap at no loss: 6 threads on 2 cores cropped
    JPEGs of 500x375 at 996 and 867 images/s, and at 742 and 699 without this.

    Returns:
      Whether it was done: not on other backends, nor with another C library.
    """
    if not sys.platform.startswith("linux") or not _computes_on_cpu():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One heap, which pieces of all sizes come from and which never shrinks.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    return all(mallopt(option, value) == 1 for option, value in settings)


def _computes_on_cpu() -> bool:
    """Whether JAX will choose the CPU; has no device looked for."""
    if jax.config.jax_platforms:
        return jax.config.jax_platforms.split(",")[0] == "cpu"
    # Where JAX finds the plugins of other backends.
    modules = ("jax_plugins", "libtpu")
    if any(importlib.util.find_spec(module) is not None for module in modules):
        return False
    return not metadata.entry_points(group="jax_plugins")


def peak_bytes(compiled: jax.stages.Compiled) -> int:
    """The memory that a compiled function takes while it runs, by the compiler.

    Arguments and results, counted once where they share memory (donated
    arguments), and the most that is taken in between. On a mesh: of one device.
    Nothing is run, so that shapes are enough to compile from:

        peak_bytes(jax.jit(step, donate_argnums=0).lower(*shapes).compile())

    where `shapes` are arrays or what `jax.eval_shape` gives. Compilers plan the
    same program differently: the figure is that of the backend compiled for.
    """
    stats = compiled.memory_analysis()
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
    )
