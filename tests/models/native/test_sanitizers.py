"""Tests the memory accesses and the threads of the kernels with sanitizers."""

import os
import pathlib
import subprocess
import sys

import jax.ffi
import pytest

from edp.models.native import build

pytestmark = pytest.mark.long
HERE, ROOT = pathlib.Path(__file__).parent, pathlib.Path(__file__).parents[3]
MEMORY = "-fsanitize=address,undefined"
THREADS = "-fsanitize=thread"
AVX2 = "-march=haswell"


def compiles(tmp_path, sources, *options):
    """Compiles sources with a sanitizer; skips the test if the compiler has none."""
    try:
        build._processor()
        compiler, _ = build._compiler()
    except build.Unavailable as error:
        pytest.skip(str(error))
    common = ("-std=c++17", "-O1", "-march=native", "-fno-sanitize-recover=all")
    empty = tmp_path / "empty.cc"
    empty.write_text("int main() {}")
    command = [*compiler, *common, *options, "-o", str(tmp_path / "compiled")]
    tried = subprocess.run([*command, str(empty)], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"the C++ compiler has no sanitizer: {tried.stderr.strip()}")
    subprocess.run([*command, *map(str, sources)], check=True)
    return tmp_path / "compiled"


@pytest.mark.parametrize("options", [(MEMORY,), (MEMORY, AVX2), (THREADS,)])
def test_arrays_of_exact_size_on_several_threads(options, tmp_path):
    include = f"-I{build._SOURCE}"
    program = compiles(
        tmp_path, [HERE / "kernels_test.cc"], include, "-pthread", *options
    )
    done = subprocess.run([program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


@pytest.mark.parametrize("options", [(), (AVX2,)])
def test_custom_calls_within_jax(options, tmp_path):
    """The self-test of the library, with the buffers and the threads of XLA."""
    include = ("-isystem", jax.ffi.include_dir(), "-fPIC", "-shared")
    sources = build._SOURCE.glob("*.cc")
    library = compiles(tmp_path, sources, MEMORY, *include, *options)
    linked = subprocess.run(
        ["ldd", library], capture_output=True, text=True, check=True
    )
    fields = [line.split() for line in linked.stdout.splitlines()]
    runtimes = [
        field[2] for field in fields if "asan" in field[0] or "ubsan" in field[0]
    ]
    if not any("libasan" in runtime for runtime in runtimes):
        pytest.skip("the C++ compiler has no shared AddressSanitizer")
    environment = os.environ | {
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python and XLA keep memory to the end
        "JAX_PLATFORMS": "cpu",
        "EDP_NATIVE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "edp.models.native.selftest", library],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
