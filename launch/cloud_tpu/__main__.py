"""Runs on Cloud TPU with the `gcloud` command.

    python -m launch.cloud_tpu create --name=edp --zone=us-west4-a --type=v5litepod-8
    python -m launch.cloud_tpu setup  ...    # copies and installs the committed code
    python -m launch.cloud_tpu run    ... -- --config=configs/cifar10_resnet32.py \\
        --workdir=gs://my-bucket/resnet32
    python -m launch.cloud_tpu logs   ...
    python -m launch.cloud_tpu delete ...

`run` waits for the run to end. Ctrl-C stops waiting but not the run; the same command
waits again. With --spot it creates the machine, and recreates it after a preemption;
the run resumes from its workdir. --dry_run prints the commands and does nothing.
"""

import pathlib
import sys

from absl import app, flags

from edp.errors import InputError

from ..cli import arguments
from . import commands, following
from . import machine as machines

_TEXTS = {
    "name": "Name of the TPU VM.",
    "zone": "Zone, such as us-west4-a.",
    "type": "Accelerator type, such as v5litepod-8.",
    "version": "Runtime version; default: that of the accelerator type.",
    "project": "Project; default: that of gcloud config.",
    "worker": "logs: index of the host, from 0.",
}
_BOOLS = {
    "spot": "Spot machine: cheaper and preemptible; run recreates it.",
    "preemptible": "Preemptible machine: as --spot, for at most 24 hours.",
    "delete_when_done": "run: delete the machine after exit code 0.",
    "dry_run": "Print the commands and do nothing.",
}
_FLAGS = {
    **{name: flags.DEFINE_string(name, None, text) for name, text in _TEXTS.items()},
    **{name: flags.DEFINE_bool(name, False, text) for name, text in _BOOLS.items()},
}
_SECONDS = flags.DEFINE_float("poll_seconds", 60.0, "run: seconds between polls.", 0.0)
_VERBS = ("create", "setup", "run", "logs", "delete")


def main(argv: list[str]) -> None:
    given = {name: flag.value for name, flag in _FLAGS.items()}
    with arguments.bad_input_in_a_line():
        verbs, own = argv[1:2], argv[2:]
        if not set(verbs) <= set(_VERBS) or not verbs:
            given_verb = verbs[0] if verbs else ""
            raise InputError(
                f"command {given_verb!r} is unknown; accepted: {', '.join(_VERBS)}"
            )
        if own and verbs != ["run"]:
            raise InputError(f"unexpected argument {own[0]!r}; flags begin with --")
        for flag in own:  # a --dry_run after -- would be ignored
            if flag.lstrip("-").partition("=")[0] in (*_FLAGS, "poll_seconds"):
                raise InputError(f"{flag} must stand before --")
        if missing := [n for n in ("name", "zone", "type") if not given[n]]:
            raise InputError(f"--{missing[0]} is required")
        sys.exit(_do(verbs[0], given, own))


def _do(verb: str, given: dict, run_flags: list[str]) -> int:
    machine = machines.Machine(
        given["name"],
        given["zone"],
        given["type"],
        *(given[n] for n in ("version", "project", "spot", "preemptible")),
    )
    machines.check(machine)
    root = pathlib.Path(__file__).parents[2]
    if verb in ("setup", "run") and not (root / ".git").exists():
        raise InputError(f"{verb} needs a git checkout of edp; {root} is not one")
    runner = following.Runner(root, dry=given["dry_run"], seconds=_SECONDS.value)
    if verb == "run":
        machines.check_run(machine, run_flags)
        return runner.follow(machine, run_flags, given["delete_when_done"])
    return runner.all(
        {
            "create": lambda: [commands.create(machine)],
            "setup": lambda: commands.setup(machine),
            "logs": lambda: [commands.logs(machine, given["worker"] or "0")],
            "delete": lambda: [commands.delete(machine)],
        }[verb]()
    )


if __name__ == "__main__":
    app.run(main)
