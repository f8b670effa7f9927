"""Tests interrupted runs, locked stages and corrupt files."""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import time

import pytest
from finished_runs import (
    LOG_COMPILES,
    STAGES,
    STUDENTS,
    assert_same_run,
    steps_compiled,
)
from launching import finish, num_lines, snapshot, succeed, tiny, wait_for

from edp.models import native
from edp.runtime import lock, storage
from launch.cli import signals


def test_an_interrupted_run_goes_on_to_the_same_end(finished, commands, tmp_path):
    workdir = tmp_path / "run"
    teachers = workdir / "teachers"
    first, second = (workdir / f"students/{name}" for name in STUDENTS[:2])
    moments = [
        (signal.SIGTERM, (workdir / "config.json").exists),  # before a step
        (signal.SIGTERM, lambda: num_lines(teachers / "metrics.jsonl") >= 1),
        (signal.SIGKILL, (teachers / "complete.json").exists),  # between stages
        # Between the log and the checkpoint, perhaps.
        (signal.SIGKILL, lambda: num_lines(first / "metrics.jsonl") >= 1),
        (signal.SIGINT, lambda: num_lines(second / "metrics.jsonl") >= 1),
    ]
    complete, recorded = {}, workdir / "run.json"
    for number, condition in moments:
        if recorded.exists():  # as if the run had been begun with more cores
            facts = json.loads(recorded.read_text())
            began = facts["available_cores"] = facts["available_cores"] + 1
            recorded.write_text(json.dumps(facts))
        process = commands.start("run", *tiny(workdir), env=LOG_COMPILES)
        wait_for(condition, process)
        process.send_signal(number)
        done = finish(process)
        if number == signal.SIGKILL:
            assert done.code == -signal.SIGKILL
        else:
            assert_ended_as_asked(done, workdir)
        assert complete.items() <= completed_stages(workdir).items()
        complete = completed_stages(workdir)
    assert "teachers" in complete and "students/single_none" not in complete
    (other,) = json.loads(recorded.read_text())["continued_with"]
    cores = other["available_cores"]
    assert f"with {began} available cores and continues with {cores} " in done.stderr
    # It began a student, while the steps of the next ones may have been compiled.
    assert 1 <= steps_compiled(done) <= 3
    done = succeed(commands.run("run", *tiny(workdir)))
    assert "teachers: complete" in done.stdout
    assert complete.items() <= completed_stages(workdir).items()
    assert_same_run(workdir, finished)
    # With the CPU kernels, where there are some: bits are the same with them too.
    facts = storage.read_mapping(workdir / "run.json")
    assert facts["kernels"]["kernels"] == native.status()["kernels"]


def assert_ended_as_asked(done, workdir):
    """Asserts that a command asked to end saved a checkpoint and said so."""
    assert done.code == 75
    assert "Traceback" not in done.stderr
    # Within a line: a thread that compiles may log meanwhile.
    said = re.search("interrupted: .+; run the command again to resume", done.stderr)
    assert said, done.stderr
    if found := re.search(r"(\S+): saved at step (\d+) of 12", said[0]):
        name = found[1]
        stage = workdir / (name if name == "teachers" else f"students/{name}")
        assert (stage / "checkpoints" / found[2]).is_dir()
        assert not (stage / "complete.json").exists()


def completed_stages(workdir):
    """Returns the contents of each complete stage, by name."""
    return {
        stage: snapshot(workdir / stage)
        for stage in STAGES
        if (workdir / stage / "complete.json").exists()
    }


@pytest.mark.long
def test_a_run_killed_at_random_goes_on_to_the_same_end(finished, commands, tmp_path):
    draw = random.Random(0)
    workdir = tmp_path / "run"
    started = workdir / "config.json"
    for kills in itertools.count():
        before = started.stat().st_mtime_ns if started.exists() else 0
        process = commands.start("run", *tiny(workdir))
        wait_for(
            lambda before=before: (
                started.exists() and started.stat().st_mtime_ns > before
            ),
            process,
        )
        try:
            # More and more, so that it comes to an end on any machine.
            process.wait(timeout=draw.uniform(0, 2 + 0.1 * kills))
            break
        except subprocess.TimeoutExpired:
            if kills % 3 == 0:  # as a cluster does it: asked first, killed soon after
                process.terminate()
                time.sleep(draw.uniform(0, 0.3))
            process.kill()
            finish(process)
    succeed(finish(process))
    assert kills > 3
    assert_same_run(workdir, finished)


def test_signals_are_asked_for_only_while_training():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt), signals.stop_requests() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop()
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one ends it at once")
    survived = False
    with pytest.raises(KeyboardInterrupt), signals.stop_requests():
        os.kill(os.getpid(), signal.SIGINT)
        survived = True
    assert survived  # until it left, for nobody had asked
    with signals.stop_requests():
        pass
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert after == before


def test_a_loss_that_is_not_finite_ends_the_run(server, tmp_path):
    flags = [*tiny(tmp_path / "run"), "--config.teachers.learning_rate=1e30"]
    done = server.run("train_teachers", *flags, "--config.teachers.schedule=constant")
    assert done.code == 1
    last = done.stderr.splitlines()[-1]
    assert re.match(r"failed: teachers: the loss is (nan|inf) in epoch 1, at st", last)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run/teachers/complete.json").exists()


def test_a_second_run_is_refused_where_the_first_one_writes(copied, server):
    more = ",".join([*STUDENTS, "single_gaussian"])
    before = snapshot(copied)
    for command, flags, place in (
        ("run", [], copied / "students/single_gaussian"),
        ("distill", ["--only=single_gaussian"], copied / "students/single_gaussian"),
        ("evaluate", [], copied),
        ("report", [], copied),
    ):
        with lock.held(place):
            done = server.run(command, *tiny(copied, more), *flags)
        assert done.code == 2 and done.stderr.count("\n") == 1, done
        expected = f"error: {place} is being written by process {os.getpid()} on "
        assert done.stderr.startswith(expected)
    (copied / "students/single_gaussian").rmdir()
    # Not even `config.json`, whose settings would be those of another run.
    assert snapshot(copied) == before
    # What nobody writes can be made meanwhile.
    with lock.held(copied / "students/single_gaussian"):
        done = succeed(server.run("distill", *tiny(copied), "--only=single_none"))
    assert done.stdout == "single_none: complete\n"


def test_a_second_run_in_a_new_workdir_writes_nothing(server, tmp_path):
    with lock.held(tmp_path / "teachers"):
        before = snapshot(tmp_path)
        done = server.run("run", *tiny(tmp_path), "--config.seed=1")
        assert snapshot(tmp_path) == before  # no split of another seed, above all
    assert done.code == 2
    assert f"{tmp_path}/teachers is being written by process" in done.stderr


@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_run_looks_at_the_sums_of_what_it_rests_on(stage, copied, server):
    name = "_CHECKPOINT_METADATA"
    path = copied / stage / "variables" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before = snapshot(copied)
    done = server.run("run", *tiny(copied), "--config.evaluation.max_subsets=1")
    assert done.code == 2 and done.stderr.count("\n") == 1, done
    expected = f"error: {copied / stage}/variables is damaged: {name} has changed since"
    assert done.stderr.startswith(expected)
    assert snapshot(copied) == before


def test_damaged_teachers_of_another_run_are_refused(copied, server, tmp_path):
    name = "_CHECKPOINT_METADATA"
    (copied / "teachers/variables" / name).unlink()
    flags = [*tiny(tmp_path / "run"), f"--config.teachers_workdir={copied}"]
    done = server.run("run", *flags)
    assert done.code == 2
    assert f"{copied}/teachers/variables is damaged: {name} is missing" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_full_disk_ends_the_run_in_a_line(finished, server, tmp_path):
    """Uses cached programs, as compiled programs are files too.

    Of a checkpoint of the teachers, the metadata have 9,411 bytes. Its arrays may be
    one file of 14,480 or two smaller ones, as the writing threads have it.
    """
    workdir = tmp_path / "run"
    for limit, place in ((9000, "teachers/checkpoints"), (2000, "config.json")):
        done = server.run("run", *tiny(workdir), max_file_bytes=limit)
        last = done.stderr.splitlines()[-1]
        assert done.code == (1 if limit == 9000 else 2) and "File too large" in last
        assert str(workdir / place) in last
        assert "Traceback" not in done.stderr
    assert not (workdir / "teachers/complete.json").exists()
