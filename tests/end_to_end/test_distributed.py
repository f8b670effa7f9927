"""Tests that two processes of four devices equal one process of eight."""

import dataclasses
import itertools
import json
import re
import signal
import socket
import threading
import types
from concurrent import futures

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import quick_compiler
from absl import flags
from absl.testing import flagsaver
from jax.experimental import multihost_utils
from launching import Commands, finish, num_lines, tiny, wait_for

from edp.errors import InputError
from edp.runtime import multihost, sharding
from launch.cli import distributed

STUDENT = "single_gaussian"
MESH = ["--config.mesh.member=2", "--config.mesh.data=4"]
SHORT = [
    "--config.teachers.num_epochs=2",
    "--config.distill.num_epochs=2",
    "--config.data.crop_padding=0",
    "--config.teachers.select=best",
    "--config.distill.select=best",
]


def with_devices(number):
    flag = f"--xla_force_host_platform_device_count={number} {quick_compiler.FLAGS}"
    return {"XLA_FLAGS": flag}


def arguments(workdir):
    return [*tiny(workdir, STUDENT), *MESH, *SHORT]


def start_two(commands, flags):
    """Starts a run in two processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    joined = [f"--coordinator_address={address}", "--num_processes=2"]
    return [
        commands.start(
            "run",
            *flags,
            *joined,
            f"--process_id={number}",
            env=with_devices(4),
        )
        for number in range(2)
    ]


def finish_both(started):
    """Waits for both at once, as each waits for the other."""
    done = [None, None]

    def wait(number):
        done[number] = finish(started[number])

    threads = [threading.Thread(target=wait, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


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


def test_two_processes_do_what_one_does_though_they_are_killed(
    commands, one_process, tmp_path
):
    workdir = tmp_path / "run"
    started = start_two(commands, arguments(workdir))
    wait_for((workdir / "teachers/checkpoints/4").is_dir, started[0])
    started[0].kill()
    killed, left = finish_both(started)
    # The one that is left does not wait for ever.
    assert killed.code == -signal.SIGKILL and left.code not in (0, 75)
    assert not (workdir / "students").exists()

    first, second = finish_both(start_two(commands, arguments(workdir)))
    assert (first.code, second.code) == (0, 0), (first, second)
    assert "teachers  epoch 1/2" not in first.stderr  # it went on
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


# --- Joining ----------------------------------------------------------------


@pytest.fixture
def joins(monkeypatch):
    """Records the arguments of `jax.distributed.initialize` in an empty environment."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **k: calls.append(k))
    for name in (*distributed._COUNTS, "TPU_ML_PLATFORM", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    flags.FLAGS.mark_as_parsed()
    preemption_service = jax.config.jax_enable_preemption_service
    yield calls
    jax.config.update("jax_enable_preemption_service", preemption_service)


GIVEN = {"coordinator_address": "host:1234", "num_processes": 2, "process_id": 1}


def test_flags_say_which_process_this_is(joins):
    with flagsaver.flagsaver(**GIVEN):
        distributed.join()
    assert joins == [{**GIVEN, "cluster_detection_method": "deactivate"}]


@pytest.mark.parametrize(
    ("environment", "joined"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, False),  # a batch script
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}, False),  # a shell
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_ML_PLATFORM": "JAX"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_ML_PLATFORM": "JAX"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),  # any container there
    ],
)
def test_the_environment_says_whether_there_are_others(
    environment, joined, joins, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    distributed.join()
    assert joins == [{}] * joined
    with flagsaver.flagsaver(num_processes=1):  # each for itself
        distributed.join()
    assert joins == [{}] * joined


def test_a_failure_to_join_is_reported(joins, monkeypatch):
    def fail():
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"should be defined.*--num_processes=1"):
        distributed.join()


# --- Agreeing ---------------------------------------------------------------


@pytest.fixture
def two_threads(monkeypatch):
    """Runs a function in two threads that are processes 0 and 1 to each other.

    Each sets its own clock, `own.now`.
    """
    own, both, said = threading.local(), threading.Barrier(2, timeout=60), [None] * 2

    def allgather(value):
        said[own.index] = value
        both.wait()
        result = np.stack(said)
        both.wait()
        return result

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", allgather)
    clock = types.SimpleNamespace(monotonic=lambda: own.now)
    monkeypatch.setattr(multihost, "time", clock)

    def run(function):
        def one(index):
            own.index, own.now = index, 0.0
            return function(index, own)

        with futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, range(2)))

    return run


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize(("seconds", "limit"), [(0.1, 10), (0.001, 1000), (7, 1)])
def test_processes_stop_at_the_same_step_soon_after_one_is_asked(
    asked, seconds, limit, two_threads
):
    def train(index, own):
        """Returns the step at which the loop stopped."""
        step = 0
        should_stop = multihost.stop_together(lambda: index == asked and step >= 300)
        for step in itertools.count():
            own.now += seconds * (1 + index)  # process 1's clock is a bad one
            if should_stop():
                return step

    first, second = two_threads(train)
    assert first == second
    assert 300 <= first < 300 + limit


def test_alone_a_request_is_heard_at_once():
    should_stop = multihost.stop_together(lambda: True)
    assert should_stop()
    assert multihost.any_of(True) and not multihost.any_of(False)
    assert multihost.from_first({"a": [1, None]}) == {"a": [1, None]}


# --- Placing ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Device:
    """Device of a GPU cluster, with the attributes that a mesh reads."""

    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "a GPU"


@pytest.mark.parametrize(
    ("member", "data", "same_host"),
    [
        (4, 2, [[0, 0], [0, 0], [1, 1], [1, 1]]),
        (2, 4, [[0, 0, 0, 0], [1, 1, 1, 1]]),
        (1, 8, [[0, 0, 0, 0, 1, 1, 1, 1]]),
        (8, 1, [[0], [0], [0], [0], [1], [1], [1], [1]]),
    ],
)
def test_members_rather_than_batches_are_spread_over_hosts(
    member, data, same_host, monkeypatch
):
    devices = [Device(id, id // 4) for id in range(8)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    monkeypatch.setattr(sharding, "Mesh", lambda devices, axes, **_: devices)
    arranged = sharding.create_mesh(member, data)
    assert sorted(device.id for device in arranged.flat) == list(range(8))
    hosts = [[device.slice_index for device in row] for row in arranged]
    assert hosts == same_host


def test_every_process_must_have_a_part_in_the_mesh(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match=r"mesh\.member=1 x .* must be 8, .* 2 proc"):
        sharding.create_mesh(1, 1)
