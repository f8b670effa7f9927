"""Tests how the kernels get onto a machine, and machines where they cannot."""

import ctypes
import functools
import os
import shlex
from concurrent import futures

import jax
import numpy as np
import pytest

from edp.models import cpu_convolution, native
from edp.models.native import build, library, operations, selftest

KERNELS = pytest.mark.skipif(
    native.status()["kernels"] != "native", reason="this machine has no kernels"
)


def test_in_use_where_they_can_be_compiled():
    """Or tests that need the kernels would be skipped where these are wrong."""
    if os.environ.get("EDP_NATIVE") == "0" or jax.device_count() > 1:
        pytest.skip("turned off")
    try:
        build._processor()
        build._compiler()
    except build.Unavailable as error:
        pytest.skip(str(error))
    assert native.status()["kernels"] == "native", native.status()


COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo "fake 1.0"; exit; fi
[ -n "$FAILS" ] && { echo "kernels.cc:1: error: no header" >&2; exit 1; }
for last; do true; done
case "$last" in *.o) echo "a part" > "$last"; exit;; esac
echo x >> "$(dirname "$0")/calls"
sleep 0.2
echo "a library" > "$last"
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A compiler that counts its libraries, an empty cache, and right kernels."""
    path = tmp_path / "c++"
    path.write_text(COMPILER)
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EDP_NATIVE", raising=False)
    monkeypatch.setattr(build, "_processor", lambda: "features")
    monkeypatch.setattr(build, "_test", lambda built: None)
    return lambda: len((tmp_path / "calls").read_text().splitlines())


def load(monkeypatch):
    monkeypatch.setattr(library, "_load", functools.cache(library._load.__wrapped__))
    return native.status()


def test_built_once(fake):
    path, compiler = build.library()
    assert path.read_text() == "a library\n"
    assert compiler == "fake 1.0"
    assert build.library() == (path, compiler)
    assert fake() == 1


@pytest.mark.parametrize("spaced", [False, True])
def test_a_compiler_with_arguments(spaced, fake, tmp_path, monkeypatch):
    """As in CXX="ccache g++"; and a compiler whose path has a space."""
    first, _ = build.library()
    (tmp_path / "a launcher").write_text('#!/bin/sh\n[ "$1" = c++ ] && shift\n')
    with (tmp_path / "a launcher").open("a") as script:
        script.write(f'exec "{tmp_path}/c++" "$@"\n')
    (tmp_path / "a launcher").chmod(0o755)
    (tmp_path / "launcher").symlink_to("a launcher")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    commands = ("launcher c++", "a launcher")
    monkeypatch.setenv("CXX", commands[spaced])
    second, compiler = build.library()
    assert first != second and fake() == 2
    assert compiler == "fake 1.0"


def test_a_damaged_library_is_built_again(fake):
    path, _ = build.library()
    for damage in (
        lambda: path.write_text("a lib"),
        path.unlink,
        path.with_suffix(".json").unlink,
        lambda: path.with_suffix(".json").write_text("{"),
    ):
        calls = fake()
        damage()
        assert build.library()[0].read_text() == "a library\n"
        assert fake() == calls + 1


@pytest.mark.parametrize("locks", [True, False])
def test_two_build_at_once(locks, fake, monkeypatch):
    if not locks:

        def refuse(*args):
            raise OSError("no locks available")

        monkeypatch.setattr(build.fcntl, "flock", refuse)
    with futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: build.library()[0], range(2))
    assert first == second
    assert first.read_text() == "a library\n"
    assert fake() == (1 if locks else 2)


def test_kernels_that_fail_their_test_are_not_tried_again(fake, monkeypatch):
    def fail(built):
        raise build.Unavailable("their test failed: off by 1")

    monkeypatch.setattr(build, "_test", fail)
    for _ in range(2):
        with pytest.raises(build.Unavailable, match="off by 1"):
            build.library()
    assert fake() == 1


def test_the_test_finds_a_wrong_kernel(monkeypatch):
    fn = lambda x, kernels, strides: 1.001 * x  # noqa: E731
    monkeypatch.setattr(operations, "convolve", fn)
    with pytest.raises(AssertionError, match="a kernel is off by"):
        selftest.check([selftest.convolution(1, 2, (4, 4), 8, 8, 3, 1)])


@pytest.mark.skipif(jax.device_count() > 1, reason="of one device")
@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"PATH": "/nowhere", "CXX": ""},
            "no C++ compiler was found (g++, clang++, c++)",
        ),
        ({"CXX": "no-such-compiler"}, "no C++ compiler was found (no-such-compiler)"),
        ({"CXX": "c++ 'open"}, "CXX=c++ 'open is not a command: No closing quotation"),
        ({"FAILS": "1"}, "c++ failed: kernels.cc:1: error: no header"),
        ({"XDG_CACHE_HOME": "/dev/null"}, "/dev/null/edp/native cannot be written"),
    ],
)
def test_without_kernels_a_line_tells_why(environment, said, fake, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    status = load(monkeypatch)
    assert status["kernels"] == "xla"
    assert said in status["reason"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the fast CPU kernels are not used")
    assert said in line
    draw = np.random.default_rng(0).standard_normal
    x, kernel = draw((2, 5, 5, 8), np.float32), draw((3, 3, 8, 8), np.float32)
    y = jax.jit(cpu_convolution.convolve, static_argnums=2)(x, kernel, 1)
    expected = cpu_convolution._forward(x, kernel, 1)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    assert capsys.readouterr().err == ""


def test_a_library_that_cannot_be_loaded(fake, monkeypatch, capsys):
    assert "cannot be loaded" in load(monkeypatch)["reason"]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_unknown_processor(monkeypatch):
    monkeypatch.setattr(build.platform, "machine", lambda: "riscv64")
    with pytest.raises(build.Unavailable, match="not riscv64"):
        build.library()


def test_turned_off_silently(fake, monkeypatch, capsys):
    monkeypatch.setenv("EDP_NATIVE", "0")
    assert load(monkeypatch) == {"kernels": "xla", "reason": "EDP_NATIVE=0"}
    assert capsys.readouterr().err == ""


@KERNELS
@pytest.mark.long
def test_built_and_tested_from_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler, _ = build._compiler()
    monkeypatch.setenv("CXX", shlex.join([*compiler, "-mno-avx512f"]))
    path, _ = build.library()
    assert path.is_relative_to(tmp_path)
    assert build._is_sound(path, path.with_suffix(".json"))
    # The instructions are those compiled to, not those of the processor.
    assert library._INSTRUCTIONS[ctypes.CDLL(str(path)).edp_lanes()] == "avx2"
