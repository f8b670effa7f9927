"""Benchmark cases: networks with their sizes, and the steps timed on them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from edp.errors import InputError


class Case(NamedTuple):
    """Network and the sizes of its steps.

    Attributes:
      name: the key in `CASES`.
      model: the settings that `edp.models.create_model` reads.
      batch_size: training images in a step (of each member, for teachers).
      num_members: M of the teachers and of a BatchEnsemble student.
      precision: 'float32' or 'bfloat16', the compute type of the networks.
      image_shape: (H, W, C).
      num_classes: K.
      step_size: η of the perturbations, in pixel units of [0, 1].
      temperature: τ.
      alpha: weight of the distillation loss.
      members_at_once: members whose activations are in memory at once; None: all.
    """

    name: str
    model: dict[str, Any]
    batch_size: int
    num_members: int = 4
    precision: str = "float32"
    image_shape: tuple[int, int, int] = (32, 32, 3)
    num_classes: int = 10
    step_size: float = 1 / 255
    temperature: float = 1.0
    alpha: float = 0.9
    members_at_once: int | None = None


_RESNET32 = {"name": "resnet", "depth": 32, "width": 16}
_WRN28_10 = {"name": "wide_resnet", "depth": 28, "widen_factor": 10}

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        # For tests: takes seconds; the numbers are meaningless.
        Case(
            "tiny",
            {"name": "resnet", "depth": 8, "width": 4},
            batch_size=8,
            num_members=2,
            image_shape=(8, 8, 3),
        ),
        Case(
            "wrn28_1",
            {"name": "wide_resnet", "depth": 28, "widen_factor": 1},
            batch_size=64,
        ),
        # The network, images and step size of configs/cifar10_small.py.
        Case(
            "resnet8_16",
            {"name": "resnet", "depth": 8, "width": 16},
            batch_size=64,
            image_shape=(16, 16, 3),
            step_size=16 / 255,
        ),
        # Those of configs/cifar10_resnet.py.
        Case(
            "resnet8_32",
            {"name": "resnet", "depth": 8, "width": 32, "stem_strides": 2},
            batch_size=128,
            step_size=4 / 255,
            temperature=4.0,
        ),
        Case("resnet32", _RESNET32, batch_size=128),
        Case("resnet32_bf16", _RESNET32, batch_size=128, precision="bfloat16"),
        Case("wrn28_10", _WRN28_10, batch_size=64),
        Case("wrn28_10_bf16", _WRN28_10, batch_size=64, precision="bfloat16"),
    )
}
GPU_CASES = ("wrn28_10_bf16", "resnet32_bf16")


class Step(NamedTuple):
    """Kind of step.

    Attributes:
      kind: 'teacher_step', 'perturb' (alone), 'distill' or 'predict'.
      student: a name in `edp.students.STUDENTS`; 'distill' and 'predict' only.
      perturbation: a name in `edp.perturbations.PERTURBATIONS`; 'distill' and
        'perturb' only.
    """

    kind: str
    student: str | None = None
    perturbation: str | None = None

    @property
    def name(self) -> str:
        return "/".join(part for part in self if part is not None)

    @property
    def uses_all_members(self) -> bool:
        """Returns whether it runs several teachers, so that the strategy matters."""
        one_member = self.perturbation in ("ods", "conf_ods")
        return not (self.kind == "perturb" and one_member)


STEPS: dict[str, Step] = {
    step.name: step
    for step in (
        Step("teacher_step"),
        *(Step("perturb", None, p) for p in ("ods", "conf_ods", "disagreement")),
        *(
            Step("distill", student, perturbation)
            for student in ("single", "batch_ensemble")
            for perturbation in ("none", "mixup", "conf_ods", "disagreement")
        ),
    )
}
HEADLINE_STEP = "distill/batch_ensemble/conf_ods"
# Cases and steps of --quick.
QUICK = {
    "wrn28_1": (HEADLINE_STEP, "teacher_step"),
    "resnet32": (HEADLINE_STEP,),
    "resnet8_16": (
        "teacher_step",
        "distill/single/none",
        "distill/single/disagreement",
        "distill/batch_ensemble/disagreement",
    ),
}


class Group(NamedTuple):
    """One step of one case; its contenders are compared."""

    case: Case
    step: Step


def choose(registry: dict[str, Any], names: Sequence[str], setting: str) -> list[Any]:
    """Returns the entries `names` of `CASES` or `STEPS`.

    Raises:
      InputError: for an unknown name; names the `setting`.
    """
    for name in names:
        if name not in registry:
            raise InputError(
                f"{setting}={name!r} is not known; accepted: {', '.join(registry)}"
            )
    return [registry[name] for name in names]


def override(case: Case, **values) -> Case:
    """Returns the case with those of `values` that are not None."""
    given = {name: value for name, value in values.items() if value is not None}
    return case._replace(**given)


def quick_groups() -> list[Group]:
    """Returns the groups of `QUICK`."""
    return [
        Group(CASES[case], STEPS[step])
        for case, steps in QUICK.items()
        for step in steps
    ]


def scaling_groups(case: Case) -> list[Group]:
    """Returns the headline step for several numbers of members and batch sizes."""
    sizes = [(m, case.batch_size) for m in (1, 2, 4, 8)]
    sizes += [(case.num_members, b) for b in (32, 64, 128, 256)]
    return [
        Group(case._replace(num_members=m, batch_size=b), STEPS[HEADLINE_STEP])
        for m, b in dict.fromkeys(sizes)
    ]
