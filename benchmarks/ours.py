"""Steps of edp as contenders: the same functions that the commands run."""

import functools
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks import limits
from benchmarks.cases import Case, Step
from benchmarks.timing import Contender
from configs import default
from edp import distill, ensemble, models, perturbations, students
from edp.models import batch_norm, native
from edp.runtime import optimizers, rng, xla
from edp.runtime.state import TrainState, split_variables

# Small, to stay finite over many steps on one batch; speed does not depend on it.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, RANK_ONE_LR_FACTOR = 0.01, 0.9, 5e-4, 0.5
MEAN, STD = 0.5, 0.25
# More than are timed before a student changes what it computes, as `bridge` does late.
_TRAINING_STEPS = 100_000


class Problem(NamedTuple):
    """Data and weights that all contenders of a case start from, on the device.

    Attributes:
      case: its case.
      build_model: builds the network, as `Experiment.build_model`.
      model: the plain network.
      variables: of the M teachers, stacked.
      students: initial variables of students, by name.
      image: float32 [M, B, H, W, C] in [0, 1]; a student sees the first [B, ...].
      label: int32 [M, B].
    """

    case: Case
    build_model: Callable[..., models.Classifier]
    model: models.Classifier
    variables: Any
    students: dict[str, Any]
    image: jax.Array
    label: jax.Array


def model_builder(case: Case) -> Callable[..., models.Classifier]:
    """Returns a builder of the case's network: takes `num_members`, `factor_init`."""
    channels = case.image_shape[-1]
    return functools.partial(
        models.create_model,
        ml_collections.ConfigDict(case.model),
        num_classes=case.num_classes,
        mean=(MEAN,) * channels,
        std=(STD,) * channels,
        dtype=case.precision,
    )


def create_problem(case: Case, student_names: Iterable[str] = ()) -> Problem:
    """Draws the data, the teachers (untrained: timings are the same) and students."""
    key = jax.random.key(0)
    build_model = model_builder(case)
    model = build_model()
    sizes = (case.num_members, case.batch_size)
    image = jax.random.uniform(rng.stream(key, "image"), (*sizes, *case.image_shape))
    label = jax.random.randint(rng.stream(key, "label"), sizes, 0, case.num_classes)
    example = image[0, :1]
    shapes = jax.eval_shape(functools.partial(model.init, key, train=False), example)
    generator = np.random.default_rng(0)
    variables = [_draw(shapes, generator) for _ in range(case.num_members)]
    settle = jax.jit(functools.partial(_settle, model))
    variables = ensemble.stack([settle(member, image[0]) for member in variables])
    problem = Problem(case, build_model, model, variables, {}, image, label)
    for name in student_names:
        student = create_student(problem, name)
        drawn = _draw(
            jax.eval_shape(functools.partial(student.init, key), example), generator
        )
        if student.begin is not None:
            drawn = student.begin(drawn, variables)
        problem.students[name] = drawn
    return problem


def _draw(shapes, generator: np.random.Generator):
    """Draws variables as the layers' initialisers do, without their compile time."""

    def leaf(path, like):
        name = path[-1].key
        if name not in ("kernel", "r", "s"):
            return jnp.full(like.shape, name in ("scale", "var"), like.dtype)
        values = generator.standard_normal(like.shape, np.float32)
        if name == "kernel":
            return jnp.asarray(values * math.sqrt(2 / math.prod(like.shape[:-1])))
        return jnp.asarray(1 + values / 2)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def _settle(model: models.Classifier, variables, image: jax.Array):
    """Returns the variables with the running statistics of `image`.

    With the initial statistics, activations grow from block to block, and teachers are
    so confident that gradients underflow to denormal numbers, on which CPUs are slow.
    """
    _, updated = model.apply(variables, image, train=True, mutable=["batch_stats"])
    kept = batch_norm.BatchNorm.momentum

    def extrapolate(new, old):
        return (new - kept * old) / (1 - kept)

    stats = jax.tree.map(extrapolate, updated["batch_stats"], variables["batch_stats"])
    return {**variables, "batch_stats": stats}


def create_student(problem: Problem, name: str) -> students.Student:
    """Creates the student `name` as a run does."""
    case = problem.case
    config = {
        **default.get_config().distill.to_dict(),
        "student": name,
        "factor_init": "normal",
        "alpha": case.alpha,
        "temperature": case.temperature,
    }
    return students.create_student(
        config,
        problem.build_model,
        num_members=case.num_members,
        training_steps=_TRAINING_STEPS,
    )


def create_optimizer(
    rule: optimizers.Rule = optimizers.decay_all, optimizer: str = "sgd"
):
    """Creates the optimizer of a run, with a constant learning rate."""
    config = {
        "optimizer": optimizer,
        "schedule": "constant",
        "learning_rate": LEARNING_RATE,
        "num_epochs": 1,
        "momentum": MOMENTUM,
        "nesterov": False,
        "weight_decay": WEIGHT_DECAY,
        "rank_one_lr_factor": RANK_ONE_LR_FACTOR,
    }
    return optimizers.create_optimizer(config, 1, rule)


def _create_state(variables, init_optimizer: Callable) -> TrainState:
    """Copies variables, as the state is donated and a `Problem` must not be."""
    params, model_state = split_variables(jax.tree.map(jnp.copy, variables))
    count = jnp.zeros((), jnp.int32)
    return TrainState(count, params, model_state, init_optimizer(params))


def create_step(problem: Problem, step: Step, strategy: str):
    """Returns a step to be jitted, with its initial state.

    Returns:
      (step_fn, state, resources): `step_fn(state, resources) -> (state, value)`
      may reuse the memory of `state`; `value` is the loss or the perturbed inputs.
    """
    case, model = problem.case, problem.model

    def key(count):  # not made out here, where it would be traced with the problem
        return jax.random.fold_in(jax.random.key(1), count)

    if step.kind == "teacher_step":
        tx = create_optimizer()
        state = _create_state(problem.variables, jax.vmap(tx.init))

        def train(state, batch):
            state, metrics = ensemble.train_step(
                state,
                batch,
                key(state.step),
                model=model,
                tx=tx,
                strategy=strategy,
                members_at_once=case.members_at_once,
            )
            return state, metrics["loss"]

        return train, state, {"image": problem.image, "label": problem.label}

    if step.kind == "predict":
        student = create_student(problem, step.student)

        def predict(count, resources):
            variables, image = resources
            return count + 1, student.predict(variables, image)

        variables = student.finalise(problem.students[step.student])
        return predict, jnp.zeros((), jnp.int32), (variables, problem.image[0])

    perturb = perturbations.create_perturbation(
        {
            "perturbation": step.perturbation,
            "step_size": case.step_size,
            "temperature": case.temperature,
            "members_at_once": case.members_at_once,
        }
    )
    batch = {"image": problem.image[0], "label": problem.label[0]}
    resources = (batch, problem.variables)

    def make_teachers(variables):
        return ensemble.teachers_from_variables(model, variables, strategy=strategy)

    if step.kind == "perturb":

        def move(count, resources):
            batch, variables = resources
            perturbed = perturb(key(count), batch["image"], make_teachers(variables))
            return count + 1, perturbed

        return move, jnp.zeros((), jnp.int32), resources

    student = create_student(problem, step.student)
    # Students with a frozen source diverge with SGD; shipped runs too use AdamW.
    tx = create_optimizer(student.rule, "adamw" if student.begin else "sgd")
    state = _create_state(problem.students[step.student], tx.init)

    def distil(state, resources):
        batch, variables = resources
        state, metrics = distill.distill_step(
            state,
            batch,
            key(state.step),
            student=student,
            teachers=make_teachers(variables),
            perturb=perturb,
            tx=tx,
        )
        return state, metrics["loss"]

    return distil, state, resources


def create_contender(
    problem: Problem, step: Step, strategy: str, steps_per_call: int = 1
) -> Contender:
    """Compiles the step under one member strategy.

    Args:
      problem: see `Problem`.
      step: the step to time.
      strategy: name in `ensemble.STRATEGIES`.
      steps_per_call: above 1, this many steps are one program (a scan), which saves the
        host's overhead per step.
    """
    before = _device_memory()
    step_fn, state, resources = create_step(problem, step, strategy)
    program = step_fn
    if steps_per_call > 1:

        def program(state, resources):
            def body(carry, _):
                return step_fn(carry[0], resources), None

            # The last value is carried, not stacked; its zeros are never read.
            _, value = jax.eval_shape(step_fn, state, resources)
            zeros = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), value)
            return jax.lax.scan(body, (state, zeros), length=steps_per_call)[0]

    started = time.perf_counter()
    jitted = jax.jit(program, donate_argnums=0, compiler_options=xla.compiler_options())
    compiled = jitted.lower(state, resources).compile()
    compile_seconds = time.perf_counter() - started

    def run(calls: int) -> float:
        nonlocal state
        for _ in range(calls):
            state, value = compiled(state, resources)
        jax.block_until_ready((state, value))
        return float(value.mean())

    run(1)
    facts = {
        "compile_seconds": compile_seconds,
        "compiler_flops": limits.compiler_flops(compiled.cost_analysis()),
        "peak_bytes": xla.peak_bytes(compiled),
        "device_peak_bytes": _raised_peak(before, _device_memory()),
    }
    kernels = native.status()["kernels"]
    labels = {"contender": "edp", "strategy": strategy, "kernels": kernels}
    return Contender(labels, run, steps_per_call, facts)


def _device_memory() -> dict[str, int]:
    """Returns the allocator's statistics; empty if it keeps none, as on CPU."""
    return jax.local_devices()[0].memory_stats() or {}


def _raised_peak(before: dict[str, int], after: dict[str, int]) -> int | None:
    """Returns the bytes above those in use `before`, if the process's peak has risen.

    The allocator's peak cannot be reset, so it says nothing about a program that needs
    less memory than an earlier one.
    """
    peak = "peak_bytes_in_use"
    if peak not in before or after[peak] <= before[peak]:
        return None
    return after[peak] - before["bytes_in_use"]


def flops(case: Case, step: Step) -> int:
    """Returns the FLOPs of the step; see `limits`."""
    build_model = model_builder(case)
    image = jax.ShapeDtypeStruct((case.batch_size, *case.image_shape), jnp.float32)

    def forward(model):
        init = functools.partial(model.init, jax.random.key(0), train=False)
        apply = functools.partial(model.apply, train=False)
        return limits.forward_flops(apply, jax.eval_shape(init, image), image)

    network = student = forward(build_model())
    if step.student == "batch_ensemble":
        student = forward(build_model(num_members=case.num_members))
    return limits.step_flops(step, case.num_members, network, student)
