"""Runs on Cloud TPU, by the `gcloud` command.

    python -m launch.cloud_tpu create --name=edp --zone=us-west4-a --type=v5litepod-8
    python -m launch.cloud_tpu setup  ...    # brings what is committed here there
    python -m launch.cloud_tpu run    ... -- --config=configs/cifar10_resnet32.py \\
        --workdir=gs://my-bucket/resnet32
    python -m launch.cloud_tpu logs   ...
    python -m launch.cloud_tpu delete ...

`run` waits for the end of the run; Ctrl-C leaves it running, and the same command waits
for it again. With --spot it makes the machine itself, and anew whenever it is taken
away; the run goes on from its workdir. --dry_run prints the commands and does nothing.
"""

import pathlib
import sys

from absl import app, flags

from edp.errors import InputError

from ..cli import arguments
from . import commands, following
from . import machine as machines

_TEXTS = {
    "name": "Of the TPU VM.",
    "zone": "Such as us-west4-a.",
    "type": "Of accelerator, such as v5litepod-8.",
    "version": "Of the runtime; if not given, that of the type.",
    "project": "If not given, that of gcloud config.",
    "worker": "logs: whose, from 0.",
}
_BOOLS = {
    "spot": "Cheaper, and may be taken away; run makes it again.",
    "preemptible": "The same, for 24 hours at most.",
    "delete_when_done": "run: delete the machine when the run has ended well.",
    "dry_run": "Print the commands and do nothing.",
}
_FLAGS = {
    **{name: flags.DEFINE_string(name, None, text) for name, text in _TEXTS.items()},
    **{name: flags.DEFINE_bool(name, False, text) for name, text in _BOOLS.items()},
}
_SECONDS = flags.DEFINE_float("poll_seconds", 60.0, "run: between looks.", 0.0)
_VERBS = ("create", "setup", "run", "logs", "delete")


def main(argv: list[str]) -> None:
    given = {name: flag.value for name, flag in _FLAGS.items()}
    with arguments.bad_input_in_a_line():
        verbs, own = argv[1:2], argv[2:]
        if not set(verbs) <= set(_VERBS) or not verbs:
            raise InputError(f"the first argument must be one of {', '.join(_VERBS)}")
        if own and verbs != ["run"]:
            raise InputError(f"unexpected argument {own[0]!r}; flags begin with --")
        for flag in own:  # lest --dry_run is not what it was meant to be
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
        raise InputError(
            f"{verb} must be given in a git checkout of edp; {root} is none"
        )
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
