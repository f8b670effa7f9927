"""Times the steps beside the published recipe in PyTorch, and to the limit.

    python -m launch.benchmark --quick                    # minutes, on a CPU
    python -m launch.benchmark --gpu                      # the GPU cases
    python -m launch.benchmark --cases=wrn28_1,resnet32   # every step of these
    python -m launch.benchmark --cases=wrn28_1 --scaling  # over members and batches

Writes `benchmark.json` and `benchmark.md`. Without PyTorch (`pip install torch`)
it times this project alone.
"""

import functools
import os
import pathlib
import sys

from absl import app, flags

# The peer, in the same process, needs memory of the device too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# Its waiting threads spin for a short while, not for long: on a shared core they would
# keep those they wait for from running.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_FLAGS = {
    "quick": flags.DEFINE_bool("quick", False, "Two CPU cases, under five minutes."),
    "gpu": flags.DEFINE_bool("gpu", False, "The GPU cases; every contender."),
    "scaling": flags.DEFINE_bool("scaling", False, "Vary M and the batch of --cases."),
    "cases": flags.DEFINE_list("cases", None, "Names of cases."),
    "steps": flags.DEFINE_list("steps", None, "Names of steps; all if not given."),
    "strategies": flags.DEFINE_list("strategies", None, "Member strategies; all."),
    "peers": flags.DEFINE_list(
        "peers", None, "Of eager, compile, cudagraphs; an empty one for ours alone."
    ),
    "batch_size": flags.DEFINE_integer("batch_size", None, "Instead of the case's."),
    "num_members": flags.DEFINE_integer("num_members", None, "Instead of the case's."),
    "precision": flags.DEFINE_enum(
        "precision", None, ["float32", "bfloat16"], "Instead of the case's."
    ),
    "rounds": flags.DEFINE_integer("rounds", None, "Turns of every contender.", 2),
    "round_seconds": flags.DEFINE_float("round_seconds", None, "Of one turn.", 0),
    "steps_per_dispatch": flags.DEFINE_integer(
        "steps_per_dispatch", 1, "Of ours, in one program; for GPUs.", 1
    ),
}
_OUTPUT = flags.DEFINE_string("output", "runs/benchmark", "Directory to write to.")


def main(argv: list[str]) -> None:
    from edp.benchmark import plan, suite, tables
    from edp.errors import InputError

    try:
        if len(argv) > 1:
            raise InputError(f"unexpected argument {argv[1]!r}; flags begin with --")
        groups, settings = plan.create_plan({k: f.value for k, f in _FLAGS.items()})
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    directory = pathlib.Path(_OUTPUT.value)
    tables.set_aside(directory)
    say = functools.partial(print, flush=True)
    rows = []
    for new, metadata in suite.run(groups, settings, sys.argv[1:], say):
        rows += new
        tables.write(directory, metadata, rows)  # each time, lest it be lost
        say("\n".join(f"  {tables.describe(row)}" for row in new))
    say(f"\n{tables.format_table(rows)}\n\nWritten: {directory}/benchmark.md, .json")


if __name__ == "__main__":
    app.run(main)
