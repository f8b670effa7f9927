"""Tests that two processes of four devices equal one process of eight."""

import json
import re
import signal

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from launching import Commands, num_lines, tiny, wait_for
from two_processes import MESH, STUDENT, arguments, finish_both, start_two, with_devices


def variables(stage):
    """Returns the final variables, whatever devices they were on."""
    checkpointer = ocp.PyTreeCheckpointer()
    path = (stage / "variables").absolute()
    tree = checkpointer.metadata(path).item_metadata.tree
    args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return checkpointer.restore(path, restore_args=args)


def read_log(stage):
    return [json.loads(line) for line in (stage / "metrics.jsonl").open()]


def assert_same_run(workdir, expected):
    """Asserts equality up to rounding: eight devices add in another order."""

    def assert_close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    for stage in ("teachers", f"students/{STUDENT}"):
        jax.tree.map(
            assert_close, variables(workdir / stage), variables(expected / stage)
        )
        logs = read_log(workdir / stage), read_log(expected / stage)
        for row, other in zip(*logs, strict=True):
            assert row.keys() == other.keys()
            assert_close([*row.values()], [*other.values()])
    for name in ("teachers", STUDENT):
        file = f"predictions/{name}.npz"
        with np.load(workdir / file) as ours, np.load(expected / file) as theirs:
            assert ours.files == theirs.files
            for key in ours.files:
                assert_close(ours[key], theirs[key])
    rows, others = (
        json.loads((path / "results.json").read_text()) for path in (workdir, expected)
    )
    models = [f"DE-{size}" for size in range(1, len(rows))]
    assert [row["model"] for row in rows] == [*models, STUDENT] and len(rows) > 2
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        scores = ("accuracy", "nll", "brier", "ece", "temperature", "cnll")
        assert_close([row[k] for k in scores], [other[k] for k in scores])
    galleries = [np.load(path / "gallery.npz") for path in (workdir, expected)]
    for key in ("images", "probs"):
        assert_close(*(gallery[key] for gallery in galleries))


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def one_process(commands, tmp_path_factory):
    """Runs one process on a mesh of eight devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    done = commands.run("run", *arguments(workdir), env=with_devices(8))
    assert done.code == 0, done
    return workdir


@pytest.mark.parametrize(
    "kills", [0, pytest.param(1, marks=pytest.mark.long)], ids=["whole", "killed"]
)
def test_two_processes_do_what_one_does(kills, commands, one_process, tmp_path):
    workdir = tmp_path / "run"
    for _ in range(kills):
        started = start_two(commands, arguments(workdir))
        wait_for((workdir / "teachers/checkpoints/4").is_dir, started[0])
        started[0].kill()
        killed, left = finish_both(started)
        # The one that is left does not wait for ever.
        assert killed.code == -signal.SIGKILL and left.code not in (0, 75)
        assert not (workdir / "students").exists()

    first, second = finish_both(start_two(commands, arguments(workdir)))
    assert (first.code, second.code) == (0, 0), (first, second)
    # After a kill it went on.
    assert ("teachers  epoch 1/2" in first.stderr) == (kills == 0)
    assert f"{STUDENT}  epoch 2/2" in first.stderr and "DE-2" in first.stdout
    assert (workdir / "report.html").exists()
    assert "epoch" not in second.stderr and "DE-2" not in second.stdout
    facts = json.loads((workdir / "run.json").read_text())
    assert (facts["num_processes"], facts["num_devices"]) == (2, 8)
    assert_same_run(workdir, one_process)


@pytest.mark.long
def test_a_request_to_one_process_stops_both_at_the_same_step(
    commands, one_process, tmp_path
):
    workdir = tmp_path / "run"
    student = workdir / "students" / STUDENT
    for log, label in ((workdir / "teachers", "teachers"), (student, STUDENT)):
        started = start_two(commands, arguments(workdir))
        wait_for(lambda log=log: num_lines(log / "metrics.jsonl") >= 1, started[0])
        started[1].send_signal(signal.SIGTERM)
        done = finish_both(started)
        assert [d.code for d in done] == [75, 75], done
        steps = [
            re.search(rf"{label}: saved at step (\d) of 8", d.stderr) for d in done
        ]
        if all(steps):  # or the last step was over before they spoke of it
            assert steps[0][1] == steps[1][1]
            assert (log / "checkpoints" / steps[0][1]).is_dir()
    done = finish_both(start_two(commands, arguments(workdir)))
    assert [d.code for d in done] == [0, 0], done
    assert_same_run(workdir, one_process)


@pytest.mark.long
def test_two_processes_train_groups_and_samples_as_one_device_does(commands, tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"

    def flags(workdir):
        short = ["--config.data.crop_padding=0", "--config.distill.num_epochs=2"]
        return [*tiny(workdir, f"{STUDENT}+groups"), *short]

    done = commands.run("run", *flags(alone), env=with_devices(1))
    assert done.code == 0, done
    done = finish_both(start_two(commands, [*flags(both), *MESH]))
    assert [d.code for d in done] == [0, 0], done
    assert (both / "teachers/groups/samples/complete.json").exists()
    assert_same_run(both, alone)
