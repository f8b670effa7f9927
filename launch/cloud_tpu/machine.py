"""A machine of Cloud TPU, and which runs it can hold."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from edp.errors import InputError

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


def runtime_version(machine: Machine) -> str:
    """That asked for, or that of JAX for the type."""
    return machine.version or _TYPES[machine.accelerator_type.partition("-")[0]][0]


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
