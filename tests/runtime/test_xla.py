"""Tests that the options of XLA and of the allocator take effect."""

import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from edp.models import cpu_convolution, native
from edp.runtime import xla

ON_CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="needs a CPU")

FAULTS = """
import ctypes, resource, sys
from edp.runtime import xla

kept = xla.keep_memory() if sys.argv[1] == "keep" else True
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
faults = []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    memory = libc.malloc(64 * 2**20)
    libc.memset(memory, 1, 64 * 2**20)
    libc.free(memory)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(kept, *faults)
"""

HUGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage")
LIMITS = ("RLIMIT_AS", "RLIMIT_DATA")  # on the addresses of the heap
# Prints how many parts of the heap may have huge pages, and the peak of memory used.
HEAP = """
import pathlib, re, sys
from edp.runtime import xla

kept = xla.keep_memory() if sys.argv[1] == "True" else True
smaps = pathlib.Path("/proc/self/smaps").read_text()
parts = re.findall(r"\\[heap\\](?s:.*?)VmFlags:(.*)", smaps)
# Of this program; `ru_maxrss` is inherited from the process that started it.
status = pathlib.Path("/proc/self/status").read_text()
peak = 1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1])
print(kept, sum("hg" in flags.split() for flags in parts), peak)
"""


@ON_CPU
def test_convolutions_are_xlas_own():
    x, kernel = jnp.ones((8, 8, 8, 64)), jnp.ones((3, 3, 64, 64))
    convolve = jax.jit(
        lambda x, kernel: cpu_convolution.convolve(x, kernel, 1),
        compiler_options=xla.compiler_options(),
    )
    with native.disabled():
        text = convolve.lower(x, kernel).compile().as_text()
    assert " convolution(" in text and "ynn_fusion" not in text


@ON_CPU
def test_options_unknown_to_xla_are_dropped(monkeypatch):
    monkeypatch.setattr(xla, "_OPTIONS", {"xla_cpu_no_such_option": "1"})
    assert xla.compiler_options.__wrapped__() == {}


@ON_CPU
@pytest.mark.parametrize(
    "flags, levels", [("", (2, 0)), ("--xla_backend_optimization_level=0", (None,) * 2)]
)
def test_optimization_level_of_the_environment_has_precedence(
    monkeypatch, flags, levels
):
    monkeypatch.setenv("XLA_FLAGS", flags)
    for brief, level in zip((False, True), levels, strict=True):
        options = xla.compiler_options.__wrapped__(runs_briefly=brief)
        assert options.get("xla_backend_optimization_level") == level


def test_only_few_multiplications_run_briefly():
    # 2**32 of them: every parameter with every pixel of every image.
    assert xla.runs_briefly(2**14, (8, 8, 3), 2**12)
    assert not xla.runs_briefly(2**14, (8, 8, 3), 2**12 + 1)
    assert not xla.runs_briefly(2**14, (16, 8, 3), 2**12)


def faults(argument, **environment):
    """Returns whether memory is kept, and the page faults of 64 MiB used thrice."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, argument],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, *counts = done.stdout.split()
    return kept == "True", list(map(int, counts))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_freed_memory_is_reused():
    _, counts = faults("give back")
    assert min(counts) > 16  # pages may be of 4 KiB or of 2 MiB
    kept, (first, *later) = faults("keep", JAX_PLATFORMS="cpu")
    if not kept:
        pytest.skip("another C library")
    assert first > 16
    assert max(later) < 16


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
@pytest.mark.parametrize("kept", [True, False])
def test_the_kept_heap_may_have_huge_pages(kept):
    resource = pytest.importorskip("resource")
    overcommit = pathlib.Path("/proc/sys/vm/overcommit_memory").read_text().strip()
    limits = {resource.getrlimit(getattr(resource, k))[0] for k in LIMITS}
    is_limited = limits != {resource.RLIM_INFINITY}
    if overcommit == "2" or is_limited or not HUGE_PAGES.exists():
        pytest.skip("the heap stays as it is")
    done = subprocess.run(
        [sys.executable, "-c", HEAP, str(kept)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    took_effect, num_advised, bytes_used = done.stdout.split()
    if took_effect == "False":
        pytest.skip("another C library")
    assert bool(int(num_advised)) == kept
    assert int(bytes_used) < 2**30  # addresses are reserved, not memory


@pytest.mark.parametrize(
    ("limits", "environment"),
    [
        ({LIMITS[0]: 2**35}, {}),
        ({LIMITS[1]: 2**35}, {}),
        ({}, {"MALLOC_PERTURB_": "1"}),
        ({}, {"GLIBC_TUNABLES": "glibc.malloc.perturb=1"}),
    ],
)
def test_addresses_are_not_reserved_where_they_are_limited_or_filled(
    limits, environment, monkeypatch
):
    resource = pytest.importorskip("resource")
    infinity = resource.RLIM_INFINITY
    kinds = {getattr(resource, name): value for name, value in limits.items()}
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (kinds.get(kind, infinity), infinity)
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        xla, "_OVERCOMMIT", types.SimpleNamespace(read_text=lambda: "0")
    )
    xla._use_huge_pages(types.SimpleNamespace())  # has no malloc


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_freed_memory_is_returned_if_another_device_computes():
    kept, counts = faults("keep", JAX_PLATFORMS="cuda,cpu")
    assert not kept and min(counts) > 16


@pytest.mark.parametrize(
    ("platforms", "module", "entry", "expected"),
    [
        (None, None, (), True),
        ("cpu", "jax_plugins", ("xla_cuda12",), True),
        ("cuda,cpu", None, (), False),
        (None, "jax_plugins", (), False),
        (None, "libtpu", (), False),
        (None, None, ("xla_cuda12",), False),
    ],
)
def test_the_backend_is_known_before_initialisation(
    platforms, module, entry, expected, monkeypatch
):
    config = types.SimpleNamespace(jax_platforms=platforms)
    monkeypatch.setattr(xla, "jax", types.SimpleNamespace(config=config))
    find_spec = {module: True}.get
    monkeypatch.setattr(xla.importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(xla.metadata, "entry_points", lambda group: entry)
    assert xla._computes_on_cpu() == expected
