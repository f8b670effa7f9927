"""Compiles the kernels for the processor at hand, once, into the user's cache."""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import jax.ffi
import jaxlib

_SOURCE = pathlib.Path(__file__).parent
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fPIC",
    "-fvisibility=hidden",
)
_COMPILERS = ("g++", "clang++", "c++")
_SECONDS = 300  # for a compiler, or a test of the kernels, that hangs


class Unavailable(Exception):
    """Why there are no kernels on this machine, in a line."""


def library() -> tuple[pathlib.Path, str]:
    """Finds the library of kernels in the cache, or builds it and tests it.

    Several processes may call this at once: one builds, the others wait for it. What
    is in the cache counts only with the checksum beside it.

    Returns:
      The path of the library, and the compiler that built it.

    Raises:
      Unavailable: without a compiler, on another processor, or where the kernels
        cannot be compiled, compute something wrong or cannot be written.
    """
    features = _processor()
    compiler, version = _compiler()
    name = f"kernels-{_key(compiler, version, features)}"
    directory = _cache() / "edp" / "native"
    path, mark = directory / f"{name}.so", directory / f"{name}.json"
    if _is_sound(path, mark):
        return path, version
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory / f"{name}.lock"):
            if not _is_sound(path, mark):
                _build(compiler, path, mark)
    except OSError as error:
        raise Unavailable(f"{directory} cannot be written: {error}") from error
    return path, version


def _cache() -> pathlib.Path:
    try:
        return pathlib.Path(
            os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        )
    except RuntimeError as error:
        raise Unavailable(f"{error} Set XDG_CACHE_HOME") from error


def _processor() -> str:
    """Returns all that tells processors apart.

    Raises:
      Unavailable: if the kernels are not for this processor.
    """
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine != "x86_64":
        raise Unavailable(f"they are for x86-64 and Linux, not {machine}")
    wanted = ("model name", "flags")
    found: dict[str, str] = {}
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError as error:
        raise Unavailable(f"the processor is unknown: {error}") from error
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in wanted:
            found.setdefault(key.strip(), value.strip())
    flags = found.get("flags", "").split()
    if not {"avx2", "fma"} <= set(flags):
        raise Unavailable("this processor has no AVX2 and FMA")
    return json.dumps(found)


def _compiler() -> tuple[list[str], str]:
    """Finds the C++ compiler.

    Returns:
      Its command, with a full path: the program that `CXX` names, with the arguments
      there, or the first of `_COMPILERS`; and its version.

    Raises:
      Unavailable: if there is none.
    """
    chosen = os.environ.get("CXX", "").strip()
    names = ", ".join([chosen] if chosen else _COMPILERS)
    for program, *arguments in _commands(chosen):
        if (path := shutil.which(program)) is not None:
            command = [path, *arguments]
            version = _run([*command, "--version"], "the C++ compiler").splitlines()[0]
            return command, version
    raise Unavailable(f"no C++ compiler was found ({names})")


def _commands(chosen: str) -> list[list[str]]:
    """Returns the compilers to look for: the value of `CXX`, or the usual ones."""
    if not chosen:
        return [[name] for name in _COMPILERS]
    if shutil.which(chosen) is not None:  # a path may have spaces
        return [[chosen]]
    try:
        return [shlex.split(chosen)]  # "ccache g++"
    except ValueError as error:
        raise Unavailable(f"CXX={chosen} is not a command: {error}") from error


def _run(command: list[str], what: str, **options: Any) -> str:
    """The output of a program.

    Raises:
      Unavailable: with the last line that it wrote, if it fails.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{what} failed: {error}") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
        said = errors[0].strip() if errors else f"exit status {done.returncode}"
        raise Unavailable(f"{what} failed: {said}")
    return "\n".join(lines) or "unknown"


def _sources() -> list[pathlib.Path]:
    return sorted([*_SOURCE.glob("*.h"), *_SOURCE.glob("*.cc")])


def _key(compiler: list[str], version: str, features: str) -> str:
    """What the library depends on, as a few letters."""
    own = [*compiler, version, features, jaxlib.__version__, *_FLAGS]
    digest = hashlib.sha256("\n".join(own).encode())
    for source in _sources():
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _is_sound(path: pathlib.Path, mark: pathlib.Path) -> bool:
    """Whether the library is there as it was when its kernels passed their test.

    Raises:
      Unavailable: if they have failed it.
    """
    try:
        found = json.loads(mark.read_bytes())
        if "failed" in found:
            raise Unavailable(found["failed"])
        return found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, TypeError, KeyError):
        return False


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Waits for other processes that build; not on file systems without locks."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _build(compiler: list[str], path: pathlib.Path, mark: pathlib.Path) -> None:
    """Compiles, tests, and only then puts the library and its checksum in place."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as temporary:
        built, noted = (
            pathlib.Path(temporary, path.name),
            pathlib.Path(temporary, "mark"),
        )
        _compile(compiler, built)
        found = {"sha256": hashlib.sha256(built.read_bytes()).hexdigest()}
        try:
            _test(built)
        except Unavailable as failure:
            # A test that did not start or end in time says nothing about the kernels.
            if failure.__cause__ is not None:
                raise
            found = {"failed": str(failure)}
        noted.write_text(json.dumps(found))
        os.replace(built, path)
        os.replace(noted, mark)
    if "failed" in found:
        raise Unavailable(found["failed"])


def _compile(compiler: list[str], built: pathlib.Path) -> None:
    """Compiles the sources, all at once, and links them to `built`."""
    include = ["-isystem", jax.ffi.include_dir()]
    run = functools.partial(_run, what=f"compiling them with {shlex.join(compiler)}")

    def compile_one(source: pathlib.Path) -> str:
        part = str(built.with_name(f"{source.stem}.o"))
        run([*compiler, *_FLAGS, *include, "-c", str(source), "-o", part])
        return part

    with futures.ThreadPoolExecutor() as pool:
        parts = list(pool.map(compile_one, sorted(_SOURCE.glob("*.cc"))))
    run([*compiler, *_FLAGS, "-shared", *parts, "-o", str(built)])


def _test(built: pathlib.Path) -> None:
    """In a process of its own, which a kernel may end."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "EDP_NATIVE": "0",
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    command = [sys.executable, "-P", "-m", f"{__package__}.selftest", str(built)]
    _run(command, "their test", env=environment)
