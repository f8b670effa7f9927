"""XLA compiler options, allocator settings and memory use.

Measured on 2 cores of an AVX2 machine with jax 0.10; `BENCHMARKS.md` has the numbers.
"""

import ctypes
import functools
import importlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax

# XLA uses YNNPACK for convolutions, products and sums. Its convolutions with 32
# channels or more ran at half the speed of XLA's own.
_OPTIONS: dict[str, Any] = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}
# LLVM's. XLA's default, 3, compiled a third longer for steps that were no faster.
_LEVEL = {"xla_backend_optimization_level": 2}
# Compiled in a third of the time. Steps of a network of 14,000 parameters on images of
# 8x8 pixels took 20 to 70% more time; elementwise operations alone take several times
# as much.
_UNOPTIMIZED = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}

# Of networks whose training has fewer multiplications in a forward pass of all its
# images, optimising the program takes longer than it saves.
_FEW_PRODUCTS = 2**32

# <malloc.h> of glibc.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
# MADV_HUGEPAGE of <sys/mman.h>, for pages of 2 MiB.
_ADVICE, _HUGE_PAGE = 14, 2**21
_OVERCOMMIT = pathlib.Path("/proc/sys/vm/overcommit_memory")


@functools.cache
def compiler_options(*, runs_briefly: bool = False) -> dict[str, Any]:
    """Returns the `compiler_options` of `jax.jit`; empty on other backends than CPU.

    Options that the installed XLA does not know are left out (0.12 has no choice of
    fusion emitters). An optimization level in `XLA_FLAGS` has precedence.

    Args:
      runs_briefly: whether a program optimised less is finished sooner, as it takes a
        third of the time to compile. See `runs_briefly`.
    """
    if jax.default_backend() != "cpu":
        return {}
    is_set = next(iter(_LEVEL)) in os.environ.get("XLA_FLAGS", "")
    own = _UNOPTIMIZED if runs_briefly else _LEVEL
    options = _OPTIONS if is_set else {**_OPTIONS, **own}
    return {name: v for name, v in options.items() if _is_known(name, v)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    """Returns whether the installed XLA takes an option, by compiling with it."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def runs_briefly(num_params: int, image_shape: Sequence[int], num_images: int) -> bool:
    """Returns whether programs for so many images are better not optimised.

    The work is estimated from above: every parameter multiplies every pixel.

    Args:
      num_params: number of parameters.
      image_shape: (H, W, C).
      num_images: how many images the programs read, counted each time.
    """
    height, width, _ = image_shape
    return num_params * height * width * num_images <= _FEW_PRODUCTS


def keep_memory() -> bool:
    """Makes glibc keep the memory that this process frees, if JAX computes on the CPU.

    XLA allocates all memory of a program at every call. glibc returns so large a block
    to the system when it is freed, and the kernel then clears every page of the next:
    a sixth of the time of a step that needs 1.6 GB.

    Call it before JAX looks for devices (before the first array): threads that exist
    by then keep heaps of their own, and each step has its page faults again. So the
    backend is derived from `jax_platforms` and the installed plugins; with the plugin
    of an accelerator on a machine without one, set `JAX_PLATFORMS=cpu`.

    A step in which the heap grows is slower: XLA may free a call's memory after the
    next call has allocated its own. Of 16 steps of WRN-28-1 (M=4, batch 64) it was
    one, with 180,000 page faults, 2.0 s of system time and 5.6 s instead of 3.6; of 50
    with M=2 and batch 24 the 7th and the 18th. Later steps reuse the larger heap.

    Threads that decode images share the heap without loss: 6 threads on 2 cores cropped
    JPEGs of 500x375 at 996 and 867 images/s, and at 742 and 699 without this.

    Linux is also asked for pages of 2 MiB in the heap; see `_use_huge_pages`.

    Returns:
      Whether it took effect; False on other backends and with other C libraries.
    """
    if not sys.platform.startswith("linux") or not _computes_on_cpu():
        return False
    libc = ctypes.CDLL(None)
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is None:
        return False
    # One heap for blocks of all sizes, which never shrinks.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    if not all(mallopt(option, value) == 1 for option, value in settings):
        return False
    _use_huge_pages(libc)
    return True


def _use_huge_pages(libc: ctypes.CDLL) -> None:
    """Asks Linux for pages of 2 MiB in the heap, where it gives them on request only.

    A step reads hundreds of MB, and the processor's table of pages holds a few MB of
    pages of 4 KiB. Distributions that set transparent huge pages to `madvise`, such as
    Ubuntu, give larger ones to a program that asks; glibc asks only with
    `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` in the environment, read when a process
    starts.

    The heap grows to half of the machine's memory: addresses only, as no page of it is
    touched. Without effect where addresses are limited (`ulimit -v`, `ulimit -d`) or
    count as memory (`vm.overcommit_memory=2`), where glibc fills what it allocates
    (`MALLOC_PERTURB_`, a debugging aid) and where the kernel knows no request.
    """
    resource = importlib.import_module("resource")  # of Unix only
    limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    if any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in limits):
        return
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "MALLOC_PERTURB_" in os.environ or "malloc.perturb" in tunables:
        return
    try:
        if int(_OVERCOMMIT.read_text()) == 2:
            return
    except (OSError, ValueError):
        return
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PHYS_PAGES") // 2 * os.sysconf("SC_PAGE_SIZE")
    if block := libc.malloc(size):
        begin = -(-block // _HUGE_PAGE) * _HUGE_PAGE
        libc.madvise(begin, (block + size - begin) // _HUGE_PAGE * _HUGE_PAGE, _ADVICE)
        libc.free(block)


def _computes_on_cpu() -> bool:
    """Returns whether JAX will choose the CPU, without initialising backends."""
    if jax.config.jax_platforms:
        return jax.config.jax_platforms.split(",")[0] == "cpu"
    # Modules and entry points of the plugins of other backends.
    modules = ("jax_plugins", "libtpu")
    if any(importlib.util.find_spec(module) is not None for module in modules):
        return False
    return not metadata.entry_points(group="jax_plugins")


def peak_bytes(compiled: jax.stages.Compiled) -> int:
    """Returns the peak memory of a compiled function in bytes, per device.

    The compiler's estimate: arguments and results, counted once if they share memory
    (donated arguments), and the peak of temporaries. Nothing is run, so that shapes are
    enough to compile from:

        peak_bytes(jax.jit(step, donate_argnums=0).lower(*shapes).compile())

    where `shapes` are arrays or the result of `jax.eval_shape`. Backends differ: the
    number is that of the backend compiled for.
    """
    stats = compiled.memory_analysis()
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
    )
