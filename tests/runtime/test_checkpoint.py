"""Tests checkpoints, checksums and locks on damaged and full disks."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from edp.errors import InputError
from edp.experiment import provenance
from edp.report import files
from edp.runtime import checkpoint, checksums, lock, multihost, storage
from edp.runtime.stage import Stage, read_record

ROOT = pathlib.Path(__file__).parents[2]


def tree(value):
    return {"a": {"w": jnp.full((40, 30), value)}, "step": jnp.int32(value)}


def save(directory, *steps):
    with checkpoint.Checkpoints(directory) as checkpoints:
        for step in steps:
            checkpoints.save(step, tree(float(step)), {"of": step})


def restore(directory):
    """Restores and verifies a checkpoint; returns its step, None without one."""
    with checkpoint.Checkpoints(directory) as checkpoints:
        found = checkpoints.restore_latest(tree(0.0))
    if found is None:
        return None
    restored, record = found
    step = record["of"]
    jax.tree.map(np.testing.assert_array_equal, restored, tree(float(step)))
    return step


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {"flipped": flip, "truncated": truncate, "missing": os.remove}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Saves checkpoints of steps 4 and 8, and finished variables."""
    root = tmp_path_factory.mktemp("saved")
    save(root / "checkpoints", 0, 4, 8)
    checkpoint.save_variables(root / "variables", tree(1.0))
    return root


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copied")


def files_of(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


# --- Saving -----------------------------------------------------------------


def test_the_last_two_are_kept_each_with_its_checksums(saved):
    steps = sorted(path.name for path in (saved / "checkpoints").iterdir())
    assert steps == ["4", "8"]
    for step in steps:
        directory = saved / "checkpoints" / step
        listed = json.loads((directory / checksums.NAME).read_text())["files"]
        files = {path.relative_to(directory).as_posix() for path in files_of(directory)}
        assert listed.keys() == files - {checksums.NAME} and len(listed) > 5
    assert restore(saved / "checkpoints") == 8


def test_checkpoints_are_written_asynchronously(tmp_path):
    """Saves a state whose buffers are donated, as in training."""
    step = jax.jit(lambda x: jax.tree.map(lambda x: x + 1, x), donate_argnums=0)
    state = {"w": jnp.zeros((300, 1000)), "step": jnp.int32(0)}
    with checkpoint.Checkpoints(tmp_path / "c") as checkpoints:
        for n in range(1, 6):
            state = step(state)
            checkpoints.save(n, state, {"of": n})
            for _ in range(3):
                state = step(state)
                checkpoints.poll()
            state = jax.tree.map(lambda x, n=n: x * 0 + n, state)
        assert checkpoints.blocked_seconds > 0
        restored, _ = checkpoints.restore_latest(state)
    assert np.all(np.asarray(restored["w"]) == 5) and restored["step"] == 5


# --- Damage -----------------------------------------------------------------


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(kind, copied, capfd):
    newest = copied / "checkpoints/8"
    files = files_of(newest)
    if kind != "flipped":
        files = files[::4]
    assert len(files) > 1
    for path in files:
        backup = shutil.copytree(newest, copied / "backup")
        DAMAGE[kind](path)
        expected = 4
        if path.name == checksums.NAME and kind == "missing":
            expected = 8  # older versions wrote no checksums
        assert restore(copied / "checkpoints") == expected
        said = capfd.readouterr().err
        if expected == 8:
            assert said == ""
        else:
            name = path.relative_to(newest).as_posix()
            assert said.startswith(f"warning: {newest} is damaged: ")
            assert said.endswith("; resuming from step 4\n") and said.count("\n") == 1
            # A flipped checksum shows at its file.
            assert name in said or path.name == checksums.NAME
            assert (copied / "damaged/8").is_dir()
        if newest.exists():
            shutil.rmtree(newest)
        backup.rename(newest)
    assert restore(copied / "checkpoints") == 8


def test_training_begins_anew_if_all_checkpoints_are_damaged(copied, capfd):
    for step in (4, 8):
        truncate(copied / f"checkpoints/{step}/record/metadata")
    assert restore(copied / "checkpoints") is None
    first, second = capfd.readouterr().err.splitlines()
    assert "checkpoints/8 is damaged: record/metadata has" in first
    assert first.endswith("resuming from step 4")
    assert "checkpoints/4 is damaged" in second
    assert second.endswith("resuming from the start")
    save(copied / "checkpoints", 4)  # may be written again
    assert restore(copied / "checkpoints") == 4


def test_damage_without_checksums_is_found_by_reading(copied, capfd):
    (copied / "checkpoints/8" / checksums.NAME).unlink()
    truncate(copied / "checkpoints/8/record/metadata")
    assert restore(copied / "checkpoints") == 4
    said = capfd.readouterr().err
    assert "checkpoints/8 is damaged: it cannot be read: " in said
    assert "resuming from step 4" in said


@pytest.mark.parametrize("signed", [True, False])
def test_a_checkpoint_with_another_structure_is_refused_and_kept(signed, copied):
    if not signed:
        (copied / "checkpoints/8" / checksums.NAME).unlink()
    other = tree(0.0) | {"more": jnp.zeros(3)}
    with (
        checkpoint.Checkpoints(copied / "checkpoints") as checkpoints,
        pytest.raises(InputError, match=r"8 has another structure.*more is None in"),
    ):
        checkpoints.restore_latest(other)
    assert restore(copied / "checkpoints") == 8


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_variables_are_never_read(kind, copied):
    directory = copied / "variables"
    data = files_of(directory)[4]
    checkpoint.load_variables(directory, tree(0.0))
    DAMAGE[kind](data)
    name = data.relative_to(directory).as_posix()
    with pytest.raises(InputError, match=rf"variables is damaged: {name} "):
        checkpoint.load_variables(directory, tree(0.0))


def test_wrong_json_is_named(tmp_path):
    for text, words in (
        ("[]", "complete.json is damaged; accepted: a JSON object"),
        ('{"id": 1}', "complete.json is damaged: num_params, train_seconds is missing"),
        ("\xff", "complete.json is not valid JSON"),
    ):
        (tmp_path / "complete.json").write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=words):
            read_record(tmp_path)


@pytest.mark.parametrize("name", ["split.npz", "gallery.npz"])
def test_an_npz_with_any_bit_flipped_is_read_or_refused_by_name(name, tmp_path):
    """In whatever layer the bit is: zip, deflate, or the header of an array."""
    path = tmp_path / name
    arrays = {"a": np.arange(40), "b": np.float32(3), "names": np.array(["x", "yz"])}
    write = np.savez if name == "split.npz" else np.savez_compressed
    write(path, **arrays)
    data = path.read_bytes()
    refused = 0
    for at in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            storage.read_npz(path)
        except InputError as error:
            refused += 1
            assert name in str(error)
        found, why = files.read(path, files.load_arrays(*arrays))
        assert (found is None) == bool(why)
    assert refused > len(data) / 9


# --- Disks ------------------------------------------------------------------


@contextlib.contextmanager
def file_limit(num_bytes):
    """Limits the size of files; larger writes fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_reported_and_earlier_checkpoints_stay(copied):
    checkpoints = checkpoint.Checkpoints(copied / "checkpoints")
    big = {"a": {"w": jax.random.normal(jax.random.key(0), (400, 300))}}
    with file_limit(100_000):
        checkpoints.save(12, big, {"of": 12})
        with pytest.raises(checkpoint.SaveFailed, match="File too large; the ch"):
            checkpoints.finish()
        checkpoints.__exit__(None, None, None)
        with pytest.raises(checkpoint.SaveFailed, match=r"variables: File too large$"):
            checkpoint.save_variables(copied / "new/variables", big)
    assert restore(copied / "checkpoints") == 8
    assert checksums.damage(copied / "checkpoints/4") is None
    save(copied / "checkpoints", 12)
    assert restore(copied / "checkpoints") == 12


def test_a_removed_workdir_is_reported(tmp_path):
    with checkpoint.Checkpoints(tmp_path / "c") as checkpoints:
        shutil.rmtree(tmp_path / "c")
        with pytest.raises(checkpoint.SaveFailed, match="c is gone"):
            checkpoints.save(1, tree(1.0), {})
    assert not (tmp_path / "c").exists()


# --- Versions ---------------------------------------------------------------


def test_a_workdir_of_another_version(tmp_path, capfd):
    provenance.check_version(tmp_path)  # not begun
    facts = {"schema_version": provenance.SCHEMA_VERSION, **provenance.versions()}
    storage.write_json(tmp_path / "run.json", facts)
    provenance.check_version(tmp_path)
    assert capfd.readouterr().err == ""
    storage.write_json(tmp_path / "run.json", {**facts, "jax": "0.1", "edp": "0.0.1"})
    provenance.check_version(tmp_path)
    said = capfd.readouterr().err
    assert said.startswith(f"warning: {tmp_path} was begun with edp 0.0.1, jax 0.1 and")
    assert f"goes on with edp {facts['edp']}, jax {jax.__version__}" in said
    for schema in (provenance.SCHEMA_VERSION + 1, None, "1"):
        storage.write_json(tmp_path / "run.json", {**facts, "schema_version": schema})
        with pytest.raises(InputError, match=rf"schema_version={schema!r}; accepted"):
            provenance.check_version(tmp_path)


# --- Locks ------------------------------------------------------------------


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


def test_an_interruption_while_reading_is_not_damage(copied, monkeypatch):
    """The library wraps a KeyboardInterrupt in an error of its own."""

    def interrupted(*args, **kwargs):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise Exception("Encountered error while reading array") from error

    before = sorted(copied.rglob("*"))
    with monkeypatch.context() as patch:
        for name in ("CheckpointManager", "StandardCheckpointer", "PyTreeCheckpointer"):
            patch.setattr(getattr(checkpoint.ocp, name), "restore", interrupted)
        with pytest.raises(KeyboardInterrupt):
            restore(copied / "checkpoints")
        with pytest.raises(KeyboardInterrupt):
            checkpoint.load_variables(copied / "variables", tree(0.0))
        with pytest.raises(KeyboardInterrupt):
            checkpoint.load_arrays(copied / "variables")
        patch.setattr(checkpoint.ocp.StandardCheckpointer, "metadata", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.read_shapes(copied / "variables")
    assert sorted(copied.rglob("*")) == before
    assert restore(copied / "checkpoints") == 8
