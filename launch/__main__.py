"""Runs any command: `edp run --config=digits --workdir=runs/digits`."""

import runpy
import sys

from .cli import exit_codes

# Each is a module or package beside this one.
COMMANDS = {
    "cloud_tpu": "Runs on Cloud TPU with the `gcloud` command.",
    "distill": "Distils the teachers into the students of the configuration.",
    "evaluate": "Evaluates a run's networks, or predictions made elsewhere.",
    "export": "Exports a student or the ensemble as a standalone artifact.",
    "import_teachers": "Imports networks trained elsewhere as the teachers of a run.",
    "predict": "Classifies image files with an exported artifact.",
    "report": "Prints the table of results and renders the report of a workdir.",
    "run": "Runs the main job: teachers, students, evaluation, report.",
    "summarize": "Summarises runs over their seeds, and compares settings.",
    "sweep": "Runs a configuration under several seeds and settings.",
    "train_teachers": "Trains the teachers, all in one jitted step.",
}


def main() -> None:
    """Runs the command named by the first argument, as `python -m` runs its module."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        sys.argv = [f"edp {name}", *rest]
        runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
    elif name in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        for command, what in COMMANDS.items():
            print(f"edp {command:<{width}}  {what}")
        print("\nedp COMMAND --help describes a command and lists its flags.")
    else:
        accepted = ", ".join(COMMANDS)
        exit_codes.bad_input(LookupError(f"no command {name!r}; accepted: {accepted}"))


if __name__ == "__main__":
    main()
