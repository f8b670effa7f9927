"""Tests that workdirs of other runs and damaged ones are refused, and kept."""

import os
import shutil

import pytest
from launching import snapshot, succeed, tiny
from refusals import settings

# Case -> flags and words of the message. Later flags win.
BAD = {
    "workdir is a file": (["--workdir={a_file}"], ["{a_file}", "not a directory"]),
    "workdir in a file": (["--workdir={a_file}/run"], ["{a_file}", "not a directory"]),
    "workdir of a dangling link": (["--workdir={dangling}"], ["{dangling}"]),
    "workdir with a broken split": (
        ["--workdir={bad_split}"],
        ["{bad_split}/split.npz cannot be read as an .npz of plain arrays"],
    ),
    "workdir with broken settings": (
        ["--workdir={bad_settings}"],
        ["{bad_settings}/teachers/settings.json is not valid JSON"],
    ),
    "teachers with other settings": (
        ["--workdir={finished}", *settings(seed=3, teachers__num_epochs=4)],
        [
            "{finished}/teachers was made with other settings",
            "seed was 0 and is now 3",
            "teachers.num_epochs was 3 and is now 4",
        ],
    ),
    "student with other settings": (
        ["--workdir={finished}", *settings(students__single_none__alpha=0.5)],
        ["{finished}/students/single_none", "distill.alpha was 0.9 and is now 0.5"],
    ),
    "more epochs of finished students": (
        ["--workdir={finished}", *settings(distill__num_epochs=9)],
        [
            "distill.num_epochs was 3 and is now 9",
            "another --workdir with --config.teachers_workdir={finished}, which reuses",
        ],
    ),
    "no teachers there": (
        settings(teachers_workdir="{digits_folder}"),
        ["teachers_workdir='{digits_folder}' holds no completed teachers"],
    ),
    "teachers of another model": (
        settings(teachers_workdir="{finished}", model__width=5),
        ["{finished}/teachers", "model.width was 4 and is now 5"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_a_line_and_nothing_is_written(case, refused):
    refused(*BAD[case])


def test_a_split_of_another_seed_is_refused(finished, server, tmp_path):
    shutil.copy(finished / "split.npz", tmp_path)
    before = snapshot(tmp_path)
    done = server.run("run", *tiny(tmp_path), "--config.seed=1")
    assert done.code == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path}/split.npz has seed 0" in done.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_workdir_without_permission_is_refused(server, tmp_path):
    tmp_path.chmod(0o555)
    done = server.run("run", *tiny(tmp_path / "run"))
    tmp_path.chmod(0o755)
    assert done.code == 2 and done.stderr.count("\n") == 1
    assert f"no permission to write to {tmp_path}" in done.stderr


def test_damaged_files_are_named(copied, server):
    shutil.rmtree(copied / "students/single_none/variables")
    (copied / "predictions/single_none.npz").unlink()
    done = server.run("evaluate", *tiny(copied))
    assert done.code == 2 and "students/single_none/variables is missing" in done.stderr
    (copied / "students/single_none/complete.json").write_text("{")
    done = server.run("run", *tiny(copied))
    assert done.code == 2 and "complete.json is not valid JSON" in done.stderr
    weights = next((copied / "teachers/variables/ocdbt.process_0/d").iterdir())
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    before = snapshot(copied)
    done = server.run("distill", *tiny(copied, "single_gaussian"))
    assert snapshot(copied) == before  # also `config.json`, whose students differ
    assert done.code == 2 and done.stderr.count("\n") == 1
    assert f"teachers/variables is damaged: ocdbt.process_0/d/{weights.name} has" in (
        done.stderr
    )
    weights.write_bytes(whole)
    # As the first message says: restored from the last checkpoint, without training.
    (copied / "students/single_none/complete.json").unlink()
    done = succeed(server.run("run", *tiny(copied)))
    assert "epoch" not in done.stderr
