"""Tests of how a process joins the others of its run."""

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from edp.errors import InputError
from launch.cli import distributed


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
