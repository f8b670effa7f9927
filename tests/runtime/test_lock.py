"""Tests of the locks of workdirs and stages."""

import errno
import fcntl
import os
import pathlib
import re
import subprocess
import sys

import pytest
from file_limits import file_limit

from edp.errors import InputError
from edp.runtime import lock, multihost
from edp.runtime.stage import Stage

ROOT = pathlib.Path(__file__).parents[2]


def test_a_second_run_is_refused_naming_the_holder(tmp_path):
    with lock.held(tmp_path / "a"):
        with lock.held(tmp_path / "b"):
            pass
        words = rf"a is being written by process {os.getpid()} on .*, since 20.*; wait"
        with pytest.raises(InputError, match=words), lock.held(tmp_path / "a"):
            raise AssertionError
        (tmp_path / "a" / lock.NAME).write_text("")  # before the holder is written
        with pytest.raises(InputError, match="another process"):
            lock.held(tmp_path / "a").__enter__()
    assert list(tmp_path.rglob(lock.NAME)) == []
    with lock.held(tmp_path / "a"):
        pass


def test_a_lock_dies_with_its_process(tmp_path):
    code = (
        "import sys, time, pathlib; from edp.runtime import lock\n"
        "with lock.held(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(300)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    words = f"written by process {holder.pid} on "
    with pytest.raises(InputError, match=words), lock.held(tmp_path):
        raise AssertionError
    holder.kill()
    holder.communicate()
    assert (tmp_path / lock.NAME).exists()
    with lock.held(tmp_path):
        pass


def test_without_locks_a_warning_is_given(tmp_path, monkeypatch, capfd):
    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock.held(tmp_path), lock.held(tmp_path):
        pass
    assert "cannot be locked (No locks available)" in capfd.readouterr().err


def test_all_processes_raise_a_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(multihost, "is_first", lambda: False)
    monkeypatch.setattr(multihost, "from_first", lambda value: "it is another's")
    with pytest.raises(InputError, match="it is another's"), lock.held(tmp_path):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_written_is_named_and_released(tmp_path):
    words = re.escape(str(tmp_path / lock.NAME))
    with (
        file_limit(0),
        pytest.raises(OSError, match=f"File too large: '{words}'"),
        lock.held(tmp_path),
    ):
        raise AssertionError
    with lock.held(tmp_path):
        pass


def test_a_stage_begun_meanwhile_with_other_settings_is_refused(tmp_path):
    mine, other = (Stage(tmp_path / "s", {"seed": seed}) for seed in (0, 1))
    with other.making():
        other.begin()
    words = "s was made with other settings .seed was 1 and is now 0"
    with pytest.raises(InputError, match=words), mine.making():
        raise AssertionError
    other.complete({"num_params": 1, "train_seconds": 2.0})
    with pytest.raises(InputError, match=words), mine.making():
        raise AssertionError


def test_a_stage_is_locked(tmp_path):
    stage = Stage(tmp_path / "s", {})
    with stage.making() as needed:
        assert needed
        other = Stage(tmp_path / "s", {})
        with pytest.raises(InputError, match="being written"), other.making():
            raise AssertionError
        stage.complete({"num_params": 1, "train_seconds": 2.0})
    with stage.making() as needed:
        assert not needed
