"""What is asked of XLA and of the allocator takes effect."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from edp import cpu
from edp.models import convolution, native

ON_CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="needs a CPU")

FAULTS = """
import ctypes, resource, sys
from edp import cpu

kept = cpu.keep_memory() if sys.argv[1] == "keep" else True
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


@ON_CPU
def test_convolutions_are_xlas_own():
    x, kernel = jnp.ones((8, 8, 8, 64)), jnp.ones((3, 3, 64, 64))
    convolve = jax.jit(
        lambda x, kernel: convolution.convolve(x, kernel, 1),
        compiler_options=cpu.compiler_options(),
    )
    with native.disabled():
        text = convolve.lower(x, kernel).compile().as_text()
    assert " convolution(" in text and "ynn_fusion" not in text


@ON_CPU
def test_options_that_xla_does_not_know_are_not_given(monkeypatch):
    monkeypatch.setattr(cpu, "_OPTIONS", {"xla_cpu_no_such_option": "1"})
    assert cpu.compiler_options.__wrapped__() == {}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_freed_memory_is_used_again():
    def faults(argument):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, argument],
            capture_output=True,
            text=True,
            check=True,
        )
        kept, *counts = done.stdout.split()
        if kept != "True":
            pytest.skip("another C library")
        return list(map(int, counts))

    assert min(faults("give back")) > 16  # pages may be of 4 KiB or of 2 MiB
    first, *later = faults("keep")
    assert first > 16
    assert max(later) < 16
