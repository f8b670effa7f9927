"""Builds the `gcloud` commands of a run on Cloud TPU, each a list of arguments.

The reference of `gcloud compute tpus tpu-vm` and its `create`, `describe`, `delete`,
`ssh` and `scp`:
(https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm).
"""

import shlex
from collections.abc import Sequence

from .machine import Machine, runtime_version
from .states import EXIT_INTERRUPTED, RUNNING

Command = list[str]

_ARCHIVE = "edp.tar.gz"


def create(machine: Machine) -> Command:
    """Creates the machine and waits until it exists."""
    return [
        *_tpu_vm("create", machine),
        f"--accelerator-type={machine.accelerator_type}",
        f"--version={runtime_version(machine)}",
        # Read and write access to gs://, not read-only.
        "--scopes=https://www.googleapis.com/auth/cloud-platform",
        *(["--spot"] if machine.spot else []),
        *(["--preemptible"] if machine.preemptible else []),
    ]


def delete(machine: Machine) -> Command:
    """Deletes the machine and its disk without asking."""
    return [*_tpu_vm("delete", machine), "--quiet"]


def describe(machine: Machine) -> Command:
    """Prints the machine's state."""
    return [*_tpu_vm("describe", machine), "--format=value(state)"]


def setup(machine: Machine) -> list[Command]:
    """Copies the committed code to every host and installs it with Python 3.12."""
    unpack = " && ".join(
        [
            f"mkdir -p edp && tar -xzf {_ARCHIVE} -C edp",
            # The image's own Python is older than edp needs.
            "curl -LsSf https://astral.sh/uv/install.sh | sh",
            "~/.local/bin/uv venv --clear --python 3.12 edp-env",
            "~/.local/bin/uv pip install --python edp-env/bin/python "
            f"-e {shlex.quote('edp[tpu,gcs]')}",
        ]
    )
    archive = f"/tmp/{machine.name}-{_ARCHIVE}"
    copy = [*_base("scp", machine), archive, f"{machine.name}:{_ARCHIVE}"]
    return [
        ["git", "archive", "--format=tar.gz", f"--output={archive}", "HEAD"],
        [*copy, f"--zone={machine.zone}", "--worker=all"],
        ssh(machine, unpack),
    ]


def start(machine: Machine, flags: Sequence[str]) -> Command:
    """Starts the run on every host unless it is running there.

    It continues when the connection ends, and writes `run.log` and `run.code`.
    """
    run = f"~/edp-env/bin/python -m launch.run {shlex.join(flags)} > ~/run.log 2>&1"
    lock = "flock --nonblock ~/run.lock"
    return ssh(
        machine,
        f"cd edp && {{ {lock} rm -f ~/run.code; "
        f"setsid {lock} bash -c {shlex.quote(f'{run}; echo $? > ~/run.code')} "
        "< /dev/null > /dev/null 2>&1 & }",
    )


def poll(machine: Machine) -> Command:
    """Prints the run's exit code, or `running`.

    A run without lock and code was killed, for example by a restart of its host.
    """
    cut_off = f"flock --nonblock run.lock echo {EXIT_INTERRUPTED} || echo {RUNNING}"
    return ssh(machine, f"cat run.code 2> /dev/null || {cut_off}", worker="0")


def logs(machine: Machine, worker: str = "0") -> Command:
    """Follows the run's output until Ctrl-C."""
    return ssh(machine, "tail -n 1000 -F run.log", worker)


def ssh(machine: Machine, command: str, worker: str = "all") -> Command:
    """Runs a shell command on all hosts or one."""
    return [*_tpu_vm("ssh", machine), f"--worker={worker}", f"--command={command}"]


def commands(machine: Machine, action: str, flags: Sequence[str]) -> list[Command]:
    """Returns the commands of an action: 'start', 'setup', 'create' or 'recreate'.

    Each action includes those before it in this list.
    """
    result = [start(machine, flags)]
    for name, before in (
        ("setup", setup(machine)),
        ("create", [create(machine)]),
        ("recreate", [delete(machine)]),
    ):
        if action == "start":
            break
        result = [*before, *result]
        if action == name:
            break
    return result


def _base(verb: str, machine: Machine) -> Command:
    project = [f"--project={machine.project}"] if machine.project else []
    return ["gcloud", "compute", "tpus", "tpu-vm", verb, *project]


def _tpu_vm(verb: str, machine: Machine) -> Command:
    return [*_base(verb, machine), machine.name, f"--zone={machine.zone}"]
