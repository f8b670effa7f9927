"""Machines of Cloud TPU, with checks of a machine and its run."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from edp.errors import InputError

# Series of an accelerator type -> its runtime version for JAX
# (https://cloud.google.com/tpu/docs/runtimes), and how many of the units that the type
# counts (TensorCores or chips) a single host has at most, and one of several hosts.
_TYPES = {
    "v2": ("tpu-ubuntu2204-base", 8, 8),
    "v3": ("tpu-ubuntu2204-base", 8, 8),
    "v4": ("tpu-ubuntu2204-base", 8, 8),
    "v5litepod": ("v2-alpha-tpuv5-lite", 8, 4),
    "v5p": ("v2-alpha-tpuv5", 8, 8),
    "v6e": ("v2-alpha-tpuv6e", 8, 4),
}


class Machine(NamedTuple):
    """TPU VM with one host or several.

    Attributes:
      name: of the node.
      zone: such as `us-west4-a`.
      accelerator_type: such as `v5litepod-8`.
      version: runtime version; None: that of the type.
      project: None: that of `gcloud config`.
      spot: whether it is a spot machine, which may be preempted.
      preemptible: the same, for at most 24 hours.
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
        """Whether it may be preempted, and is then recreated."""
        return self.spot or self.preemptible


def check(machine: Machine) -> None:
    """Raises an InputError for a machine that cannot exist."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", machine.name):
        raise InputError(
            f"--name={machine.name!r} is no name of a machine; accepted: lower-case "
            "letters, digits and -, from a letter to a letter or digit"
        )
    if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", machine.zone):
        raise InputError(
            f"--zone={machine.zone!r} is no zone; accepted: such as us-west4-a"
        )
    if machine.spot and machine.preemptible:
        raise InputError(
            "--spot and --preemptible are both given; accepted: one of them"
        )
    num_hosts(machine)


def num_hosts(machine: Machine) -> int:
    """Returns the number of hosts; each runs the same command.

    Raises:
      InputError: for an unknown accelerator type.
    """
    kind, _, size = machine.accelerator_type.partition("-")
    if kind not in _TYPES or not re.fullmatch(r"[1-9]\d*", size):
        raise InputError(
            f"--type={machine.accelerator_type!r} is no accelerator type; accepted: "
            f"SERIES-SIZE, such as v5litepod-8, of the series {', '.join(_TYPES)}"
        )
    _, at_most, of_several = _TYPES[kind]
    return 1 if int(size) <= at_most else int(size) // of_several


def runtime_version(machine: Machine) -> str:
    """Returns the given runtime version, or JAX's for the accelerator type."""
    return machine.version or _TYPES[machine.accelerator_type.partition("-")[0]][0]


def check_run(machine: Machine, flags: Sequence[str]) -> None:
    """Raises an InputError for flags with which the run could not resume elsewhere."""
    found = [re.fullmatch(r"--?(config|workdir)=(.+)", flag) for flag in flags]
    given = {match[1]: match[2] for match in found if match}
    if missing := sorted({"config", "workdir"} - given.keys()):
        names = " and ".join(f"--{name}=" for name in missing)
        raise InputError(f"run: {names} must be given after --")
    is_local = "://" not in given["workdir"]
    if is_local and (machine.may_go or num_hosts(machine) > 1):
        why = "is lost with the machine" if machine.may_go else "is on one host only"
        raise InputError(
            f"--workdir={given['workdir']} {why}; accepted: gs://BUCKET/DIRECTORY"
        )
