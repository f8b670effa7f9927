"""Times the distillation step with teachers in PyTorch and with the same in Flax.

    python -m benchmarks.torch_teachers --case=resnet8_16 --perturbations=disagreement

Both steps are JAX programs with equal weights, in one process; PyTorch only traces its
modules (`edp.models.from_torch`).
"""

import functools
import statistics
from typing import NamedTuple

import jax
from absl import app, flags

from benchmarks import cases, ours, timing
from edp import distill, ensemble, perturbations
from edp.models import native
from edp.runtime import xla
from launch.cli import arguments

_CASE = flags.DEFINE_string("case", "resnet8_16", "Name of a case.")
_PERTURBATIONS = flags.DEFINE_list("perturbations", ["disagreement"], "Their names.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds; both have a turn in each.", 1)
_SECONDS = flags.DEFINE_float("round_seconds", 2.0, "Seconds per turn.", 0.0)


class Comparison(NamedTuple):
    """Result of `compare`.

    Attributes:
      flax: seconds per step with Flax teachers, in each round.
      torch: likewise with PyTorch teachers.
      other_cpus: load of other processes in the worst round, in cores, if known.
    """

    flax: list[float]
    torch: list[float]
    other_cpus: float | None

    @property
    def ratio(self) -> float:
        """The speed with PyTorch teachers relative to that with Flax teachers."""
        return timing.ratio(self.torch, self.flax)


def compare(case: cases.Case, perturbation: str, budget: timing.Budget) -> Comparison:
    """Times the step of a `single` student under both kinds of teachers.

    Raises:
      InputError: if PyTorch is not installed, or computes other logits.
    """
    problem = ours.create_problem(case, ["single"])
    contenders = [
        _create_contender(problem, perturbation, name, teachers)
        for name, teachers in (
            ("flax", _flax_teachers(problem)),
            ("torch", _torch_teachers(problem)),
        )
    ]
    rounds, _ = timing.alternate(contenders, budget)
    flax, torch = zip(*(one.seconds for one in rounds), strict=True)
    loads = [one.other_cpus for one in rounds if one.other_cpus is not None]
    return Comparison(list(flax), list(torch), max(loads, default=None))


def _members(problem: ours.Problem):
    return [
        ensemble.select(problem.variables, m) for m in range(problem.case.num_members)
    ]


def _flax_teachers(problem: ours.Problem) -> ensemble.Teachers:
    apply = functools.partial(problem.model.apply, train=False)
    return ensemble.teachers_from_functions(
        [functools.partial(apply, variables) for variables in _members(problem)]
    )


def _torch_teachers(problem: ours.Problem) -> ensemble.Teachers:
    from benchmarks import peer_models  # needs PyTorch

    case = problem.case
    channels = case.image_shape[-1]
    build = functools.partial(
        peer_models.Network,
        case.model,
        case.num_classes,
        (ours.MEAN,) * channels,
        (ours.STD,) * channels,
        None,
    )
    return ensemble.teachers_from_torch(
        [peer_models.load_variables(build(), v) for v in _members(problem)]
    )


def _create_contender(problem, perturbation, name, teachers) -> timing.Contender:
    case = problem.case
    student = ours.create_student(problem, "single")
    tx = ours.create_optimizer()
    settings = {"perturbation": perturbation, "step_size": case.step_size}
    settings["temperature"] = case.temperature
    step = functools.partial(
        distill.distill_step,
        student=student,
        teachers=teachers,
        perturb=perturbations.create_perturbation(settings),
        tx=tx,
    )
    image, label = problem.image[0], problem.label[0]
    state = distill.create_state(student, tx, jax.random.key(1), image[:1])
    jitted = jax.jit(step, donate_argnums=0, compiler_options=xla.compiler_options())

    def run(calls: int) -> float:
        nonlocal state
        for _ in range(calls):
            key = jax.random.fold_in(jax.random.key(2), state.step)
            state, metrics = jitted(state, {"image": image, "label": label}, key)
        return float(metrics["loss"])

    run(1)
    return timing.Contender({"contender": name}, run, 1, {})


def main(argv: list[str]) -> None:
    with arguments.bad_input_in_a_line():
        arguments.refuse_arguments(argv[1:])
        (case,) = cases.choose(cases.CASES, [_CASE.value], "case")
        budget = timing.Budget(rounds=_ROUNDS.value, round_seconds=_SECONDS.value)
        xla.keep_memory()
        for perturbation in _PERTURBATIONS.value:
            found = compare(case, perturbation, budget)
            flax, torch = (
                case.batch_size / statistics.median(seconds)
                for seconds in (found.flax, found.torch)
            )
            print(
                f"{case.name} distill/single/{perturbation}: {flax:,.0f} images/s with "
                f"Flax teachers, {torch:,.0f} with PyTorch teachers, "
                f"{found.ratio:.2f} times the speed; kernels "
                f"{native.status()['kernels']}, other CPUs {found.other_cpus}",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
