"""Tests of the facts of a run that the report shows."""

import pytest
from report_pages import RUN, SOFTWARE, student

from edp import report


def test_facts():
    rows = [
        {"model": "DE-1", "kind": "ensemble", "num_members": 1, "seed": 3},
        {"model": "DE-2", "kind": "ensemble", "num_members": 2, "seed": 3},
        student("be", 0.1, num_members=9, seed=4),
    ]
    config = {
        "seed": 0,
        "data": {"source": "digits", "name": None, "path": None},
        "model": {
            "depth": 28,
            "name": "wide_resnet",
            "widen_factor": 10,
            "width": None,
        },
    }
    assert report.describe_run(rows, config, RUN) == {
        "Dataset": "digits",
        "Model": "wide_resnet, depth 28, widen_factor 10",
        "Members": "2",
        "Seed": "0",
        "Software": SOFTWARE,
        "Hardware": "cpu (2 cores), Linux-6.1",
    }
    assert report.describe_run(rows, {}, {}) == {"Members": "2", "Seed": "3, 4"}
    assert report.describe_run([], {"data": "cifar10", "model": None}, {}) == {}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_devices": 8}, "cpu (8 × cpu, 2 cores), Linux-6.1"),
        (
            {"continued_with": [{"available_cores": 1}]},
            "cpu (2 cores), Linux-6.1, continued on other hardware",
        ),
        (
            {"backend": "gpu", "device": "NVIDIA H100", "cpu_count": 64},
            "gpu (NVIDIA H100, 64 CPU cores), Linux-6.1",
        ),
        (
            {
                "backend": "tpu",
                "device": "TPU v4",
                "num_devices": 8,
                "num_processes": 2,
            },
            "tpu (8 × TPU v4, 2 CPU cores), 2 processes, Linux-6.1",
        ),
        ({"cpu_count": None, "platform": ""}, "cpu"),
    ],
)
def test_hardware(changed, message):
    assert report.describe_run([], {}, RUN | changed)["Hardware"] == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "tfds", "name": "cifar10", "path": None}, "cifar10"),
        ({"source": "folder", "name": None, "path": "/data/birds/"}, "birds"),
        ({"source": "npz", "name": "cifar10", "path": "sets/mnist.npz"}, "mnist.npz"),
        ({"source": "folder", "path": "."}, "folder"),
        ({"source": "digits", "name": "cifar10", "path": "x"}, "digits"),
    ],
)
def test_the_dataset_shown(data, message):
    assert report.describe_run([], {"data": data}, {}) == {"Dataset": message}
