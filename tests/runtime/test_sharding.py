"""Tests that a mesh changes where results are computed, not the results."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import pytest
import quick_compiler
from collectives import parse

from edp.errors import InputError
from edp.runtime import sharding

TESTS = pathlib.Path(__file__).parents[1]
PAIRS = [
    f"{student}:{perturbation}"
    for student in ("single", "batch_ensemble")
    for perturbation in ("none", "conf_ods", "disagreement")
]
OTHERS = (
    *("latent_batch_ensemble", "hydra", "mimo", "packed", "dirichlet"),
    *("functional", "bridge", "flow"),
)


def run_on_eight_devices(member, data, strategy, cases):
    flags = f"--xla_force_host_platform_device_count=8 {quick_compiler.FLAGS}"
    path = os.pathsep.join([str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    args = [str(member), str(data), strategy, *cases]
    done = subprocess.run(
        [sys.executable, TESTS / "support" / "mesh_program.py", *args],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n")[:-1] == [f"passed {case}" for case in cases]


@pytest.mark.parametrize(
    ("member", "data", "strategy", "cases"),
    [
        (4, 2, "unroll", ["single:disagreement", "batch_ensemble:conf_ods"]),
        pytest.param(
            *(2, 4, "vmap", ["batch_ensemble:disagreement:one_at_once"]),
            marks=pytest.mark.long,
        ),
        pytest.param(
            *(1, 8, "vmap", ["single:conf_ods:spread"]), marks=pytest.mark.long
        ),
    ],
)
def test_results_are_the_same_and_communication_is_minimal(
    member, data, strategy, cases
):
    run_on_eight_devices(member, data, strategy, cases)


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["unroll", "vmap"])
@pytest.mark.parametrize(("member", "data"), [(4, 2), (2, 4), (1, 8)])
def test_every_student_and_perturbation_on_every_mesh(member, data, strategy):
    others = [f"{kind}:mixup:result" for kind in OTHERS]
    others.append("latent_batch_ensemble:tdiv_sdiv:result")
    run_on_eight_devices(member, data, strategy, PAIRS + others)


def test_one_device_needs_no_mesh():
    assert sharding.create_mesh(1, 1) is None


def test_too_many_devices_are_refused():
    with pytest.raises(InputError, match=r"mesh\.member=64 x mesh\.data=2 .*device"):
        sharding.create_mesh(64, 2)


def test_sizes_that_do_not_divide_are_refused():
    class FakeMesh:
        shape = {"member": 3, "data": 1}  # noqa: RUF012

    with pytest.raises(InputError, match=r"num_members=4.*mesh\.member=3"):
        sharding.check_divides(FakeMesh(), "member", "teachers.num_members", 4)
    sharding.check_divides(FakeMesh(), "member", "teachers.num_members", 6)


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", ("data",)),
        ("replica_groups={{0,2,4,6},{1,3,5,7}}", ("member",)),
        ("replica_groups={}", ("data", "member")),
        ("replica_groups=[4,2]<=[8]", ("data",)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", ("member",)),
        ("replica_groups=[1,8]<=[8]", ("data", "member")),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", ("member",)),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", ("data", "member")),
        ("replica_groups=mesh['a'=4,'b'=2,'c'=1] {'b'}", ("data",)),
        (
            "replica_groups=mesh['a'=2,'b'=1,'c'=4], device_ids=([4,2]T(1,0)) {'a'}",
            ("data",),
        ),
        ("source_target_pairs={{0,2},{2,0},{1,3}}", ("member",)),
        ("source_target_pairs={{0,1},{1,0}}", ("data",)),
    ],
)
def test_groups_of_devices_are_read(groups, axes):
    line = (
        "  %r.1 = (f32[4]{0}, /*index=1*/bf16[2,3]{1,0}, pred[5]{0}) all-reduce(%a), "
        f'channel_id=1, {groups}, metadata={{op_name="jit(f)/sum"}}'
    )
    text = f"  %x = f32[4]{{0}} add(%a, %b)\n{line}\n"
    (found,) = parse(text, {"member": 4, "data": 2})
    assert found.kind == "all-reduce"
    assert found.shapes == [(4,), (2, 3), (5,)]
    assert found.num_bytes == 4 * 4 + 6 * 2 + 5
    assert found.axes == axes
    assert found.where == "jit(f)/sum"


def test_unknown_groups_raise():
    with pytest.raises(ValueError, match="unknown here"):
        parse("%r = f32[4] all-reduce(%a), replica_groups=spiral", {"member": 8})


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
