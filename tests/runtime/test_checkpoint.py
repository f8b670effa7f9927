"""Tests of checkpoints and their checksums, with damage and on full disks."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from file_limits import file_limit
from jax.experimental import multihost_utils

from edp.errors import InputError
from edp.runtime import checkpoint, checksums


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


def test_saving_does_not_ask_the_preemption_service(tmp_path, monkeypatch):
    def is_off(step):
        raise AssertionError("off in runs of several processes; Orbax < 0.12.4 asks it")

    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", is_off)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": jnp.ones(2)}, {})
    assert checkpoints.newest() == 1


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


# --- Disks ------------------------------------------------------------------


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
