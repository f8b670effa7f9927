"""Times the kinds of student beside `single`, and their FLOPs beside its FLOPs.

    python -m benchmarks.students                          # resnet8_16, every kind
    python -m benchmarks.students --case=resnet32 --students=single,mimo,packed

Two tables: the distillation step without a perturbation, and the prediction of a batch.
Each student is a process of its own, and they alternate. Time beside FLOPs above 1 says
that a student takes longer than its passes explain.
"""

import contextlib
from collections.abc import Sequence

import jax
from absl import app, flags

from benchmarks import cases, isolated, ours, timing
from benchmarks.cases import Step
from edp import ensemble
from edp.models import cpu_convolution
from edp.runtime import flops
from edp.students import STUDENTS
from launch.cli import arguments

_REFERENCE = "single"


def count_flops(problem: ours.Problem, step: Step) -> int:
    """Counts the FLOPs of a step, gradients included; see `edp.runtime.flops`."""
    with cpu_convolution.plain_gradients():
        fn, state, resources = ours.create_step(problem, step, "vmap")
        return flops.flops(fn, *jax.eval_shape(lambda: (state, resources)))


def table(
    names: Sequence[str], counts: Sequence[int], rounds: Sequence[Sequence[float]]
) -> str:
    """Formats times and FLOPs beside those of the first student, in Markdown.

    Args:
      names: of the students.
      counts: FLOPs of each.
      rounds: for each round, the seconds of each.
    """
    lines = [
        "| student | ms | time | FLOPs | time / FLOPs |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for i, name in enumerate(names):
        seconds = [one[i] for one in rounds]
        time = 1 / timing.ratio(seconds, [one[0] for one in rounds])
        count = counts[i] / counts[0]
        median = timing.summarise(seconds, 1)["seconds_per_step"]
        lines.append(
            f"| {name} | {1000 * median:.1f} | {time:.2f} | {count:.2f} | "
            f"{time / count:.2f} |"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    with arguments.bad_input_in_a_line():
        arguments.refuse_arguments(argv[1:])
        (case,) = cases.choose(cases.CASES, [flags.FLAGS.case], "case")
        cases.choose(STUDENTS, flags.FLAGS.students, "students")
    names = list(dict.fromkeys([_REFERENCE, *flags.FLAGS.students]))
    strategy = ensemble.default_strategy()
    problem = ours.create_problem(case, names)
    budget = timing.Budget(
        flags.FLAGS.rounds, flags.FLAGS.round_seconds, repeats=flags.FLAGS.repeats
    )
    for kind, perturbation in (("distill", "none"), ("predict", None)):
        steps = [Step(kind, name, perturbation) for name in names]
        counts = [count_flops(problem, step) for step in steps]
        with contextlib.ExitStack() as running:
            recipes = [isolated.Recipe(case, step, strategy) for step in steps]
            started = [running.enter_context(isolated.started(r)) for r in recipes]
            rounds, _ = timing.alternate(started, budget)
        print(f"\n{case.name}, {kind}, batch {case.batch_size}, M = {case.num_members}")
        print(table(names, counts, [one.seconds for one in rounds]))


def define_flags() -> None:
    """Defines the flags; other benchmarks in one process have flags of these names."""
    flags.DEFINE_string("case", "resnet8_16", "Name of a case.")
    flags.DEFINE_list("students", list(STUDENTS), "Kinds of student.")
    flags.DEFINE_integer("rounds", 5, "Rounds; each student has a turn in each.")
    flags.DEFINE_float("round_seconds", 1.0, "Seconds per turn.", 0.0)
    flags.DEFINE_integer("repeats", 5, "Most rounds to repeat on a busy machine.", 0)


if __name__ == "__main__":
    define_flags()
    app.run(main)
