"""Tests of the processes that decode many images."""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from edp.data import decoding_processes, decoding_worker, image_preparation
from edp.data.decoding_processes import DecodingProcesses
from edp.data.image_files import Files
from edp.data.image_reader import Records
from edp.errors import InputError

NUMBER, SHAPE = 40, (9, 7, 3)
# A script without a guard, whose JAX is initialised and whose input is closed.
SCRIPT = """
import os, pathlib, sys, time
import jax, numpy as np
from edp.data import decoding_processes, image_reader
from edp.data.image_files import Files

os.close(0)
jax.numpy.zeros(1).block_until_ready()
decoding_processes._IMAGES_PER_PROCESS = 8
os.sched_getaffinity = lambda pid: {0, 1}
print("begun", flush=True)
files = [pathlib.Path(file) for file in sys.argv[2:]]
records = image_reader.Records(Files(files), np.arange(len(files)), (9, 7, 3))
started = decoding_processes.DecodingProcesses.__init__
def start(self, number):
    started(self, number)
    print(*[process.pid for process in self._all], flush=True)
    time.sleep(float(sys.argv[1]))
decoding_processes.DecodingProcesses.__init__ = start
print(records[:].astype(int).sum(), flush=True)
"""


@pytest.fixture
def paths(tmp_path):
    """Writes images of one size, as PNG and as JPEG."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.{('png', 'jpeg')[i % 2]}" for i in range(NUMBER)]
    paths[3] = tmp_path / os.fsdecode(b"not UTF-8 \xff.png")
    for path in paths:
        Image.fromarray(rng.integers(256, size=SHAPE, dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(decoding_processes, "_IMAGES_PER_PROCESS", 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)


class Opened(Files):
    """Images as open files, as those of Parquet."""

    def fetch(self, indices):
        return [io.BytesIO(path.read_bytes()) for path in super().fetch(indices)]


def records(paths, kind=Files, resize="none", num_threads=None, shape=SHAPE):
    everything = np.arange(len(paths))
    return Records(kind(paths), everything, shape, resize, num_threads)


@pytest.mark.parametrize("kind", [Files, Opened])
def test_processes_read_what_one_thread_reads(kind, paths, two_cores, monkeypatch):
    def read(**options):
        plain = records(paths, kind, **options)[::-1]
        crops = records(paths, kind, "random_crop", shape=(5, 4, 1), **options)[:]
        return plain, crops

    expected = read(num_threads=1)
    assert len(np.unique(expected[0], axis=0)) == NUMBER
    # Not prepared here; and in calls of several images, also one less than a whole.
    monkeypatch.setattr(image_preparation, "prepare", None)
    monkeypatch.setattr("edp.data.image_reader._CHUNK_BYTES", 3 * np.prod(SHAPE))
    for found, same in zip(read(), expected, strict=True):
        np.testing.assert_array_equal(found, same)


def test_a_bad_image_is_told_as_without_processes(paths, two_cores):
    messages = []
    paths[NUMBER // 2].write_bytes(b"no image")
    Image.new("RGB", (1, 1)).save(paths[NUMBER // 2 + 1])
    for num_threads in (1, None):
        with pytest.raises(InputError) as caught:
            records(paths, num_threads=num_threads)[:]
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and str(paths[NUMBER // 2]) in messages[0]
    assert not left_after(0)  # no process is left


@pytest.mark.parametrize("num_threads", [1, None])
def test_a_source_that_leaves_images_out_is_refused(num_threads, paths, two_cores):
    class Short(Files):
        def fetch(self, indices):
            return super().fetch(indices)[:-1]

    with pytest.raises(ValueError, match="argument"):
        records(paths, Short, num_threads=num_threads)[:]


def left_after(seconds, pids=None):
    """Returns the processes (None: children) that run after at most `seconds`."""
    until = time.monotonic() + seconds
    while True:
        found = pids
        if pids is None:
            found = children()
        found = [pid for pid in found if decodes(pid)]
        if not found or time.monotonic() >= until:
            return found
        time.sleep(0.05)


def children():
    """Returns the processes that the threads of this one started."""
    found = []
    for thread in pathlib.Path(f"/proc/{os.getpid()}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found += (thread / "children").read_text().split()
    return found


def decodes(pid):
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"decoding_worker" in command


def test_a_killed_process_is_told(paths, two_cores):
    with decoding_processes.decoding(NUMBER) as processes:
        assert processes.number == 2
        for process in processes._all:
            process.kill()
        with pytest.raises(RuntimeError, match=r"decoding process ended .* -9"):
            records(paths).read(slice(None), processes=processes)
    assert not left_after(0)


def test_where_processes_do_not_help_there_are_none(
    paths, two_cores, monkeypatch, capsys
):
    number = decoding_processes._number_for
    assert [number(n) for n in (15, 16, 100)] == [1, 2, 2]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert number(10**6) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)
    assert number(40) == 5
    expected = records(paths, num_threads=1)[:]
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    np.testing.assert_array_equal(records(paths)[:], expected)
    assert "decoded in one process" in capsys.readouterr().err
    monkeypatch.setattr(sys, "executable", "")
    assert number(40) == 0
    monkeypatch.setattr(DecodingProcesses, "__init__", None)
    np.testing.assert_array_equal(records(paths)[:], expected)


def test_processes_import_little():
    """JAX alone takes longer to import than 10,000 images to decode."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", decoding_worker.__file__],
        input=json.dumps(sys.path).encode(),
        capture_output=True,
        check=True,
    )
    assert done.stdout == decoding_worker.READY
    imported = {line.split()[-1] for line in done.stderr.decode().splitlines()}
    assert {"numpy", "PIL.Image", "edp.errors"} <= imported
    assert not {"jax", "edp.data", "site"} & imported


def test_a_script_without_a_guard_reads_and_leaves_no_process(paths, tmp_path):
    """Its standard input is closed; Ctrl-C and a kill end it while it reads."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    hangs = tmp_path / "hangs.png"
    os.mkfifo(hangs)  # a process waits for it

    def begin(*arguments):
        command = [sys.executable, str(script), *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    runs = [begin(0, *paths), begin(0, *paths, hangs), begin(60, *paths)]
    for run, number in zip(runs, (None, signal.SIGINT, signal.SIGKILL), strict=True):
        assert run.stdout.readline() == "begun\n"  # once: it is not run again
        pids = run.stdout.readline().split()
        assert len(pids) == 2
        if number is None:
            total = records(paths, num_threads=1)[:].astype(int).sum()
            assert run.communicate()[0] == f"{total}\n" and run.returncode == 0
        else:
            run.send_signal(number)
            assert run.wait(20) != 0
        assert not left_after(10, pids)
