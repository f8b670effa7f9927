"""The `gcloud` commands of a run on Cloud TPU, and what is to be done in which state.

Commands are lists of arguments. Facts of the CLI: `gcloud compute tpus tpu-vm`, its
`create`, `describe`, `delete`, `ssh` and `scp`, and the states of a node
(https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm,
https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes#state).
"""

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from edp.errors import InputError

Command = list[str]

# The beginning of an accelerator's type -> its runtime version for JAX
# (https://cloud.google.com/tpu/docs/runtimes), and how many of what the type counts,
# TensorCores or chips, one host has at most, and one of several hosts.
_TYPES = {
    "v2": ("tpu-ubuntu2204-base", 8, 8),
    "v3": ("tpu-ubuntu2204-base", 8, 8),
    "v4": ("tpu-ubuntu2204-base", 8, 8),
    "v5litepod": ("v2-alpha-tpuv5-lite", 8, 4),
    "v5p": ("v2-alpha-tpuv5", 8, 8),
    "v6e": ("v2-alpha-tpuv6e", 8, 4),
}
# What a machine that is gone is told by: to be deleted and made again.
GONE = ("PREEMPTED", "TERMINATED")
MISSING = "MISSING"  # not a state of `gcloud`: there is no such machine
UNKNOWN = "UNKNOWN"  # nor this: it could not be asked
# What passes by itself.
_PASSING = ("CREATING", "STARTING", "RESTARTING", "REPAIRING", "REIMAGING", "DELETING")
_PASSING += ("STOPPING", UNKNOWN)

# What is known of a run, besides its exit code.
NOT_SET_UP, NOT_STARTED, RUNNING = "not set up", "not started", "running"
_EXIT_INTERRUPTED = "75"  # to be run again
_ARCHIVE = "edp.tar.gz"


class Machine(NamedTuple):
    """A TPU VM, of one host or of several.

    Attributes:
      name: of the node.
      zone: such as `us-west4-a`.
      accelerator_type: such as `v5litepod-8`.
      version: of the runtime; None: that of the type.
      project: None: that of `gcloud config`.
      spot: whether it may be taken away.
      preemptible: the same, for 24 hours at most.
    """

    name: str
    zone: str
    accelerator_type: str
    version: str | None = None
    project: str | None = None
    spot: bool = False
    preemptible: bool = False

    @property
    def may_go(self) -> bool:
        """Whether it is made again when it is gone."""
        return self.spot or self.preemptible


def check(machine: Machine) -> None:
    """Raises an InputError for a machine that cannot be asked for."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", machine.name):
        raise InputError(
            f"--name={machine.name!r} must be of lower-case letters, digits and -, "
            "beginning with a letter and ending with none of -"
        )
    if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", machine.zone):
        raise InputError(f"--zone={machine.zone!r} must be a zone, such as us-west4-a")
    if machine.spot and machine.preemptible:
        raise InputError("--spot and --preemptible: one of them")
    num_hosts(machine)


def num_hosts(machine: Machine) -> int:
    """How many hosts a machine has: each runs the same command.

    Raises:
      InputError: for another type of accelerator.
    """
    kind, _, size = machine.accelerator_type.partition("-")
    if kind not in _TYPES or not re.fullmatch(r"[1-9]\d*", size):
        raise InputError(
            f"--type={machine.accelerator_type!r} must be SERIES-SIZE, such as "
            f"v5litepod-8; accepted: {', '.join(_TYPES)}"
        )
    _, at_most, of_several = _TYPES[kind]
    return 1 if int(size) <= at_most else int(size) // of_several


def create(machine: Machine) -> Command:
    """Makes the machine and waits until it is there."""
    series = machine.accelerator_type.partition("-")[0]
    return [
        *_tpu_vm("create", machine),
        f"--accelerator-type={machine.accelerator_type}",
        f"--version={machine.version or _TYPES[series][0]}",
        # For gs://: reading and writing, not reading alone.
        "--scopes=https://www.googleapis.com/auth/cloud-platform",
        *(["--spot"] if machine.spot else []),
        *(["--preemptible"] if machine.preemptible else []),
    ]


def delete(machine: Machine) -> Command:
    """Deletes the machine, with all that is on it, and asks nothing."""
    return [*_tpu_vm("delete", machine), "--quiet"]


def describe(machine: Machine) -> Command:
    """Prints the machine's state."""
    return [*_tpu_vm("describe", machine), "--format=value(state)"]


def setup(machine: Machine) -> list[Command]:
    """Brings what is committed here to every host, with a Python that it needs."""
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
    """Starts the run on every host, unless it runs there already.

    It goes on when the connection ends; `run.log` and `run.code` tell of it.
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

    No lock and no code is a run that was cut off, as by a restart of its host.
    """
    cut_off = f"flock --nonblock run.lock echo {_EXIT_INTERRUPTED} || echo {RUNNING}"
    return ssh(machine, f"cat run.code 2> /dev/null || {cut_off}", worker="0")


def logs(machine: Machine, worker: str = "0") -> Command:
    """Shows the run's output, and what comes, until Ctrl-C."""
    return ssh(machine, "tail -n 1000 -F run.log", worker)


def ssh(machine: Machine, command: str, worker: str = "all") -> Command:
    """Runs a shell command on all hosts or on one."""
    return [*_tpu_vm("ssh", machine), f"--worker={worker}", f"--command={command}"]


def check_run(machine: Machine, flags: Sequence[str]) -> None:
    """Raises an InputError for flags with which the run could not go on elsewhere."""
    found = [re.fullmatch(r"--?(config|workdir)=(.+)", flag) for flag in flags]
    given = {match[1]: match[2] for match in found if match}
    if missing := sorted({"config", "workdir"} - given.keys()):
        names = " and ".join(f"--{name}=" for name in missing)
        raise InputError(f"run: {names} must be given, after --")
    is_local = "://" not in given["workdir"]
    if is_local and (machine.may_go or num_hosts(machine) > 1):
        why = "goes with the machine" if machine.may_go else "is that of each host"
        raise InputError(
            f"--workdir={given['workdir']} {why}; accepted: gs://BUCKET/DIRECTORY"
        )


def next_action(machine: Machine, state: str, known: str) -> str:
    """What is to be done about a run.

    Args:
      machine: where it runs.
      state: of the machine, or `MISSING` or `UNKNOWN`.
      known: of the run: its exit code, or `NOT_SET_UP`, `NOT_STARTED`, `RUNNING`.

    Returns:
      One of those of `commands`, or 'wait' or 'end'.
    """
    if state == "READY":
        actions = {NOT_SET_UP: "setup", NOT_STARTED: "start", RUNNING: "wait"}
        return (actions | {_EXIT_INTERRUPTED: "start"}).get(known, "end")
    if state in _PASSING:
        return "wait"
    if machine.may_go and state in (*GONE, MISSING):
        return "create" if state == MISSING else "recreate"
    return "end"


def commands(machine: Machine, action: str, flags: Sequence[str]) -> list[Command]:
    """The commands of an action: 'start', 'setup', 'create' or 'recreate' the machine.

    Each includes those before it.
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
