"""Times the steps against the published recipe in PyTorch and the hardware's peak.

    python -m benchmarks --quick                    # minutes, on a CPU
    python -m benchmarks --quick --kernels=own,xla --peers=eager,compile
    python -m benchmarks --gpu                      # the GPU cases
    python -m benchmarks --cases=wrn28_1,resnet32   # every step of these
    python -m benchmarks --cases=wrn28_1 --scaling  # over members and batches
    python -m benchmarks --cases=wrn28_10 --steps=teacher_step --capacity_gib=16

Without PyTorch (`pip install torch`) it times only edp.
"""

import functools
import os
import pathlib
import sys

from absl import app, flags

from launch.cli import arguments

# The peer needs device memory too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# PyTorch's waiting threads must not spin for long, or they block other threads.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
# PyTorch asks for huge pages then, as `edp.runtime.xla.keep_memory` does.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_BOOLS = {
    "quick": "Run three CPU cases in less than eight minutes.",
    "gpu": "Run the GPU cases.",
    "scaling": "Vary M and the batch size of each case.",
}
_LISTS = {
    "cases": "Names of cases.",
    "steps": "Names of steps; default: all.",
    "strategies": "Member strategies of edp; default: all.",
    "peers": "Of eager, compile and cudagraphs; --peers= times edp alone.",
    "kernels": "Of own and xla (EDP_NATIVE=0): the CPU kernels of edp.",
}
_COUNTS = {
    **dict.fromkeys(("batch_size", "num_members"), "Replaces that of the case."),
    "rounds": "Rounds; every contender has a turn in each.",
    "steps_per_dispatch": "Steps of edp per program; for GPUs.",
}
_OPTIONS = [
    *(flags.DEFINE_bool(name, False, text) for name, text in _BOOLS.items()),
    *(flags.DEFINE_list(name, None, text) for name, text in _LISTS.items()),
    *(flags.DEFINE_integer(name, None, text, 1) for name, text in _COUNTS.items()),
    flags.DEFINE_integer(
        "repeats", None, "Most rounds to repeat on a busy machine.", 0
    ),
    flags.DEFINE_float("round_seconds", None, "Seconds per turn.", 0.0),
    flags.DEFINE_string("precision", None, "float32 or bfloat16; default: the case's."),
]
_CAPACITY = flags.DEFINE_integer(
    "capacity_gib", None, "Find the largest batches that fit in this memory instead.", 1
)
_OUTPUT = flags.DEFINE_string("output", "runs/benchmark", "Directory to write to.")


def main(argv: list[str]) -> None:
    with arguments.bad_input_in_a_line():
        arguments.refuse_arguments(argv[1:])
        from benchmarks import capacity, plan, suite

        groups, settings = plan.create_plan({o.name: o.value for o in _OPTIONS})
    say, directory = functools.partial(print, flush=True), pathlib.Path(_OUTPUT.value)
    if _CAPACITY.value:
        capacity.write(directory, groups, _CAPACITY.value * 2**30, say)
    else:
        suite.write(directory, groups, settings, sys.argv[1:], say)


if __name__ == "__main__":
    app.run(main)
