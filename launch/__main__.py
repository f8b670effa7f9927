"""All commands as one: `edp run --config=digits --workdir=runs/digits`."""

import runpy
import sys

from .cli import exit_codes

# Each is a module beside this one.
COMMANDS = {
    "cloud_tpu": "Runs on Cloud TPU, by the `gcloud` command.",
    "distill": "Distils the teachers into the students of the configuration.",
    "evaluate": "Evaluates the ensemble and every completed student, side by side.",
    "export": "Exports a student or the ensemble as one standalone artifact.",
    "import_teachers": "Imports networks trained elsewhere as the teachers of a run.",
    "predict": "Classifies image files with an exported artifact.",
    "report": "Prints the table of results and draws the report of a workdir.",
    "run": "The main job: teachers, students, evaluation, report.",
    "summarize": "Summarises finished runs over their seeds.",
    "sweep": "Runs a configuration under several seeds and settings.",
    "train_teachers": "Trains the teachers: all networks at once, in one jitted step.",
}


def main() -> None:
    """Runs the command that is named first, as `python -m` runs its module."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        sys.argv = [f"edp {name}", *rest]
        runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
    elif name in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        for command, what in COMMANDS.items():
            print(f"edp {command:<{width}}  {what}")
        print("\nedp COMMAND --help tells more of one; --helpfull all of its flags.")
    else:
        accepted = ", ".join(COMMANDS)
        exit_codes.bad_input(LookupError(f"no command {name!r}; accepted: {accepted}"))


if __name__ == "__main__":
    main()
