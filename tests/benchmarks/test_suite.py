"""Tests the benchmark: hand-computed counts and tables, and the peer against edp."""

import contextlib
import functools
import itertools
import json
import math
import multiprocessing
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    capacity,
    cases,
    isolated,
    limits,
    neighbours,
    ours,
    plan,
    suite,
    tables,
    timing,
)
from configs import cifar10_resnet, cifar10_small
from edp import ensemble, models
from edp.errors import InputError
from edp.models import cpu_convolution, native

ROOT = pathlib.Path(__file__).parents[2]
HEADLINE = cases.STEPS[cases.HEADLINE_STEP]


def import_peer():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # several wait for each other, long on a busy machine
    from benchmarks import peer

    return peer


@functools.cache
def tiny_problem():
    return ours.create_problem(cases.CASES["tiny"], ["batch_ensemble"])


# Counting.


def test_matrix_product_and_convolution_by_hand():
    assert limits.matmul_flops(2, 3, 5) == 60
    # 2 · (2·4·4·8 outputs) · (3·3·5 products in each)
    assert limits.convolution_flops((2, 4, 4, 8), (3, 3, 5, 8)) == 2 * 256 * 45


def test_forward_count_looks_into_calls_loops_and_groups():
    x = jnp.ones((2, 4, 4, 6))
    kernel = jnp.ones((3, 3, 3, 8))  # two groups of three channels
    matrix = jnp.ones((8, 8))

    @jax.custom_vjp
    def convolve(x):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (2, 2),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        )

    convolve.defvjp(lambda x: (convolve(x), None), lambda _, g: (None,))

    def fn(x):
        y = jax.jit(convolve)(x).mean((1, 2))
        return jax.lax.scan(lambda y, _: (y @ matrix, None), y, length=3)[0]

    convolution = 2 * (2 * 2 * 2 * 8) * (3 * 3 * 3)
    assert limits.forward_flops(fn, x) == convolution + 3 * 2 * 2 * 8 * 8


def test_forward_count_of_resnet32_by_hand():
    flops = 32**2 * 9 * 3 * 16 + 64 * 10
    for stage, (size, width) in enumerate(((32, 16), (16, 32), (8, 64))):
        convolution = size**2 * 9 * width * width
        flops += 10 * convolution - (convolution // 2 if stage else 0)
    model = ours.model_builder(cases.CASES["resnet32"])()
    image = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), image, train=False)
    )
    apply = functools.partial(model.apply, train=False)
    counted = limits.forward_flops(apply, variables, image)
    assert counted == 2 * 2 * flops
    # The compiler leaves out the padding and adds what is element-wise.
    with native.disabled():
        analysis = jax.jit(apply).lower(variables, image).cost_analysis()
    assert limits.compiler_flops(analysis) == pytest.approx(counted, rel=0.1)


def test_the_compiler_counts_a_convolution_without_padding_alike():
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((1, 1, 4, 16))
    with native.disabled():
        compiled = jax.jit(lambda x: cpu_convolution.convolve(x, kernel, 1)).lower(x)
    expected = limits.convolution_flops((2, 8, 8, 16), kernel.shape)
    assert limits.compiler_flops(compiled.cost_analysis()) == expected


def test_operations_of_steps_by_hand():
    def count(name):
        return limits.step_flops(cases.STEPS[name], 4, network=10, student=50)

    assert count("teacher_step") == 3 * 4 * 10
    assert count("perturb/ods") == count("perturb/conf_ods") == 20
    assert count("perturb/disagreement") == 80
    assert count("distill/single/none") == 40 + 3 * 50
    assert count("distill/single/mixup") == 40 + 6 * 50
    assert count("distill/single/conf_ods") == 20 + 40 + 6 * 50
    assert count("distill/batch_ensemble/disagreement") == 80 + 40 + 6 * 50


def test_every_step_is_counted_and_named():
    case = cases.CASES["tiny"]
    network = ours.flops(case, cases.STEPS["perturb/ods"]) // 2
    assert ours.flops(case, cases.STEPS["teacher_step"]) == 3 * 2 * network
    single = ours.flops(case, cases.STEPS["distill/single/none"])
    assert single == 2 * network + 3 * network
    # A BatchEnsemble of two makes each convolution for two.
    assert ours.flops(case, HEADLINE) == (2 + 2 + 6 * 2) * network
    assert list(cases.STEPS) == [step.name for step in cases.STEPS.values()]
    assert not cases.STEPS["perturb/conf_ods"].uses_all_members
    assert HEADLINE.uses_all_members


def test_best_rate_counts_calls(monkeypatch):
    # Trials of 4, 2, 2, 2 and 2 seconds, of two calls each.
    times = iter([0, 4, 10, 12, 20, 22, 30, 32, 40, 42])
    monkeypatch.setattr(limits.time, "perf_counter", lambda: next(times))
    assert limits.best_rate(lambda x: x, (jnp.ones(()),), flops=300, calls=2) == 300


# Timing.


class Machine:
    """Clock with contenders that advance it."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def contender(self, name, seconds, steps_per_call=1, value=1.0):
        seconds = iter(seconds)

        def run(calls):
            self.log.append((name, calls))
            self.now += calls * next(seconds)
            return value

        return timing.Contender({"contender": name}, run, steps_per_call, {})


class Monitor:
    """Other work as given, one value for each interval; records waits."""

    def __init__(self, machine, others=None):
        self.machine = machine
        self.others = itertools.repeat(0.0) if others is None else iter(others)
        self.waits = []

    def begin(self):
        pass

    def other_cpus(self):
        return next(self.others)

    def wait(self, limit, seconds):
        self.waits.append((limit, seconds))


def test_contenders_take_turns():
    machine = Machine()
    # A first call, then the rounds.
    a = machine.contender("a", [1, 1, 2, 3])
    b = machine.contender("b", [4, 4, 8, 5], steps_per_call=2)
    budget = timing.Budget(rounds=3, round_seconds=2.0, contender_seconds=1e9)
    monitor = Monitor(machine)
    rounds, repeated = timing.alternate([a, b], budget, lambda: machine.now, monitor)
    seconds = [list(turns) for turns in zip(*(r.seconds for r in rounds), strict=True)]
    assert repeated == 0
    assert machine.log[:2] == [("a", 1), ("b", 1)]
    # Two calls of a fill a turn, one of b does; they swap who begins.
    turns = [("a", 2), ("b", 1), ("b", 1), ("a", 2), ("a", 2), ("b", 1)]
    assert machine.log[2:] == turns
    assert seconds == [[1, 2, 3], [2, 4, 2.5]]
    row = timing.summarise(seconds[1], batch_size=10)
    assert row["seconds_per_step"] == 2.5 and row["images_per_second"] == 4
    assert (row["seconds_per_step_min"], row["seconds_per_step_max"]) == (2, 4)
    # The rounds' own ratios are 2, 2 and 5/6.
    assert timing.ratio(*seconds) == 2


def test_time_runs_out_after_two_rounds_at_the_earliest():
    machine = Machine()
    slow = machine.contender("slow", [10] * 9)
    budget = timing.Budget(rounds=7, round_seconds=1.0, contender_seconds=5.0)
    rounds, _ = timing.alternate(
        [slow], budget, lambda: machine.now, Monitor(machine, [0.0, 0.9])
    )
    # There is no time left to repeat the second one.
    assert rounds == [timing.Round([10], 0.0), timing.Round([10], 0.9)]


def test_disturbed_rounds_are_repeated_after_a_wait():
    machine = Machine()
    # The first call, then rounds; the times do not decide which are kept.
    one = machine.contender("one", [1, 1, 9, 3, 2, 4])
    budget = timing.Budget(rounds=3, round_seconds=2.0, other_cpus=0.1, repeats=5)
    monitor = Monitor(machine, [0.0, 0.5, 0.1, 0.3, 0.0, 0.05])
    rounds, repeated = timing.alternate([one], budget, lambda: machine.now, monitor)
    assert rounds == [
        timing.Round([9], 0.1),
        timing.Round([2], 0.0),
        timing.Round([4], 0.05),
    ]
    assert repeated == 2
    assert monitor.waits == [(0.1, 10.0)] * 2


def test_on_a_busy_machine_the_quietest_rounds_are_kept():
    machine = Machine()
    one = machine.contender("one", range(1, 9))
    budget = timing.Budget(rounds=2, round_seconds=0.0, other_cpus=0.1, repeats=2)
    monitor = Monitor(machine, [0.8, 0.4, 0.9, 0.5])
    rounds, repeated = timing.alternate([one], budget, lambda: machine.now, monitor)
    # One call is a round here, so the first one counts; four rounds at most.
    assert rounds == [timing.Round([2], 0.4), timing.Round([4], 0.5)]
    assert repeated == 2
    assert len(machine.log) == 4


def test_where_other_work_is_unknown_nothing_is_repeated():
    machine = Machine()
    one = machine.contender("one", [1] * 9)
    budget = timing.Budget(rounds=3, round_seconds=0.0)
    monitor = Monitor(machine, [None] * 9)
    rounds, repeated = timing.alternate([one], budget, lambda: machine.now, monitor)
    assert (len(rounds), repeated) == (3, 0)


def test_waiting_ends_with_a_quiet_second_or_in_time(monkeypatch):
    now, others = [0.0], iter([0.5, 0.05, 0.5, 0.5, 0.5])
    monkeypatch.setattr(neighbours.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        neighbours.time, "sleep", lambda s: now.__setitem__(0, now[0] + s)
    )
    monkeypatch.setattr(neighbours, "usage", lambda: None)
    monkeypatch.setattr(neighbours, "other_cpus", lambda *_: next(others))
    neighbours.Monitor().wait(0.1, 9.0)
    assert now == [2.0]
    neighbours.Monitor().wait(0.1, 3.0)
    assert now == [5.0]


def test_other_work_is_what_is_not_our_own():
    # In ten seconds two cores gave 18, of which 15 were ours.
    before, after = neighbours.Usage(5, 100, 7), neighbours.Usage(15, 118, 22)
    assert neighbours.other_cpus(before, after) == pytest.approx(0.3)
    assert neighbours.other_cpus(None, after) is None


@pytest.mark.skipif(not pathlib.Path("/proc/stat").exists(), reason="needs /proc")
def test_own_work_counts_as_the_machines():
    before = neighbours.usage()
    while neighbours.usage().own < before.own + 0.2:
        sum(range(10_000))
    after = neighbours.usage()
    # The machine's clock ticks a hundred times a second.
    assert after.machine - before.machine > 0.15
    assert after.wall > before.wall


def test_nonsense_is_not_timed():
    broken = Machine().contender("broken", [1, 1, 1], value=math.nan)
    with pytest.raises(timing.NotFinite, match=r"broken.*nan"):
        timing.alternate([broken], timing.Budget())


# Rows and tables.


def row(contender, rounds=None, **extra):
    common = {
        "case": "c",
        "what": "teacher_step",
        "num_members": 4,
        "batch_size": 64,
        "precision": "float32",
        "contender": contender,
    }
    measured = timing.summarise(rounds, 64) | {"mfu": 0.25} if rounds else {}
    return {**common, **measured, **extra}


def test_ratios_are_to_the_fastest_peer():
    rows = suite.add_ratios(
        [
            row("edp", [1.0, 2.0, 4.0]),
            row("pytorch", [4.0, 4.0, 4.0]),
            row("pytorch-compile", [2.0, 3.0, 3.0]),
            row("pytorch-cudagraphs", error="no"),
        ]
    )
    ratios = [r.get("ratio_to_peer") for r in rows]
    assert ratios == [1.5, 0.75, 1.0, None]
    assert (rows[0]["ratio_to_eager"], rows[0]["ratio_to_compile"]) == (2, 1.5)
    assert "ratio_to_cudagraphs" not in rows[0]
    assert not any("ratio_to_xla" in r for r in rows)
    alone = suite.add_ratios([row("edp", [1.0])])
    assert "ratio_to_peer" not in alone[0]


def test_ratios_to_our_own_with_xlas_kernels():
    rows = suite.add_ratios(
        [
            row("edp", [1.0, 2.0], strategy="unroll", kernels="native"),
            row("edp", [3.0, 6.0], strategy="unroll", kernels="xla"),
            row("edp", [1.0, 1.0], strategy="vmap", kernels="native"),
            row("pytorch", [2.0, 4.0]),
        ]
    )
    assert [r.get("ratio_to_xla") for r in rows] == [3, None, None, None]
    assert rows[0]["ratio_to_peer"] == 2
    # Of a single peer the fastest one tells all.
    assert not any("ratio_to_eager" in r for r in rows)
    assert tables.contender_name(rows[1] | {"backend": "cpu"}) == (
        "edp without native (unroll)"
    )


def test_shares_of_the_peaks():
    assert suite.shares(50.0, suite.Rates(200.0, None)) == {"mfu": 0.25}
    both = suite.shares(50.0, suite.Rates(200.0, 100.0))
    assert both == {"mfu": 0.25, "conv_utilisation": 0.5}


def test_table_by_hand():
    rows = [
        row("edp", [0.5, 0.25, 1.0], strategy="vmap", ratio_to_peer=2.5),
        row("pytorch", error="Out of memory"),
    ]
    assert tables.format_table(rows).splitlines() == [
        "| case | what         | M | batch | precision | contender  | images/s "
        "| × peer | ms/step [min–max] | MFU    |",
        "| ---- | ------------ | - | ----- | --------- | ---------- | -------- "
        "| ------ | ----------------- | ------ |",
        "| c    | teacher_step | 4 | 64    | float32   | edp (vmap) | 128      "
        "| 2.50   | 500 [250–1,000]   | 25.0 % |",
        "| c    | teacher_step | 4 | 64    | float32   | pytorch    |          "
        "|        |                   |        |",
    ]
    metadata = {"command": "x", "peak_flops_per_second": {}}
    rows[0]["disturbed"] = True
    document = tables.format_document(metadata, rows)
    assert (
        document.count("- c, teacher_step: disturbed by other processes, unreliable")
        == 1
    )
    assert "- c, teacher_step: pytorch: failed, Out of memory" in document


def test_earlier_measurements_are_kept(tmp_path):
    tables.set_aside(tmp_path, ["benchmark", "machine"])
    for text in "first", "second":
        (tmp_path / "benchmark.json").write_text(text)
        tables.set_aside(tmp_path, ["benchmark", "machine"])
    assert not (tmp_path / "benchmark.json").exists()
    assert (tmp_path / "benchmark.1.json").read_text() == "first"
    assert (tmp_path / "benchmark.2.json").read_text() == "second"


# Options.

NOTHING = {
    "quick": False,
    "gpu": False,
    "scaling": False,
    "cases": None,
    "steps": None,
    "strategies": None,
    "peers": None,
    "kernels": None,
    "batch_size": None,
    "num_members": None,
    "precision": None,
    "rounds": None,
    "round_seconds": None,
    "repeats": None,
    "steps_per_dispatch": None,
}


def create_plan(**options):
    return plan.create_plan({**NOTHING, **options})


def test_quick_measures_the_three_named_cases(monkeypatch):
    monkeypatch.delenv("EDP_NATIVE", raising=False)
    groups, settings = create_plan(quick=True)
    assert [(g.case.name, g.step.name) for g in groups] == [
        ("wrn28_1", "distill/batch_ensemble/conf_ods"),
        ("wrn28_1", "teacher_step"),
        ("resnet32", "distill/batch_ensemble/conf_ods"),
        ("resnet8_16", "teacher_step"),
        ("resnet8_16", "distill/single/none"),
        ("resnet8_16", "distill/single/disagreement"),
        ("resnet8_16", "distill/batch_ensemble/disagreement"),
    ]
    sizes = {group.case.name: group.case.batch_size for group in groups}
    assert sizes == {"wrn28_1": 64, "resnet32": 128, "resnet8_16": 64}
    for case, _ in groups:
        assert (case.num_members, case.alpha, case.temperature) == (4, 0.9, 1.0)
    assert settings.strategies == (ensemble.default_strategy(),)
    assert settings.peers == ("eager",)
    assert settings.kernels == ("own",)
    monkeypatch.setenv("EDP_NATIVE", "0")
    assert create_plan(quick=True)[1].kernels == ("xla",)


@pytest.mark.parametrize(
    ("name", "module"), [("resnet8_16", cifar10_small), ("resnet8_32", cifar10_resnet)]
)
def test_cases_of_configurations(name, module):
    case, config = cases.CASES[name], module.get_config()
    assert case.image_shape[0] == config.data.image_shape[0] // config.data.downsample
    used = {k: v for k, v in config.model.items() if v is not None and v is not False}
    assert case.model.items() <= used.items()
    assert case.batch_size == config.teachers.batch_size
    assert case.step_size == config.distill.step_size


def test_everything_is_measured_by_default():
    groups, settings = create_plan(cases=["tiny"], batch_size=3, rounds=9, repeats=0)
    assert [group.step.name for group in groups] == list(cases.STEPS)
    assert {group.case.batch_size for group in groups} == {3}
    assert set(settings.strategies) == set(ensemble.STRATEGIES)
    assert settings.strategies[0] == ensemble.default_strategy()
    assert (settings.budget.rounds, settings.budget.repeats) == (9, 0)


def test_scaling_varies_one_size_at_a_time():
    groups, _ = create_plan(cases=["wrn28_1"], scaling=True)
    sizes = [(g.case.num_members, g.case.batch_size) for g in groups]
    assert sizes == [(1, 64), (2, 64), (4, 64), (8, 64), (4, 32), (4, 128), (4, 256)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "--cases=NAMES"),
        ({"quick": True, "cases": ["tiny"]}, "one of --quick"),
        ({"quick": True, "scaling": True}, "--scaling needs"),
        ({"quick": True, "steps": ["teacher_step"]}, "--steps needs"),
        ({"cases": ["tinny"]}, "cases='tinny'.*tiny"),
        ({"cases": ["tiny"], "steps": ["distil"]}, "steps='distil'"),
        ({"cases": ["tiny"], "strategies": ["map"]}, "strategies='map'.*unroll"),
        ({"cases": ["tiny"], "strategies": []}, "strategies is empty"),
        ({"cases": ["tiny"], "peers": ["jit"]}, "peers='jit'.*eager"),
        ({"cases": ["tiny"], "kernels": ["cuda"]}, "kernels='cuda'.*own, xla"),
        ({"cases": ["tiny"], "kernels": []}, "kernels=''.*own or xla"),
        ({"cases": ["tiny"], "precision": "float16"}, "precision='float16'"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(InputError, match=words):
        create_plan(**options)


# Contenders.


def test_several_steps_in_one_program_are_the_same_steps():
    step = cases.STEPS["perturb/conf_ods"]
    one = ours.create_contender(tiny_problem(), step, "unroll")
    three = ours.create_contender(tiny_problem(), step, "unroll", steps_per_call=3)
    assert three.steps_per_call == 3
    # Each has made one call already: these end at the sixth step, whose draws are
    # its own.
    fifth, sixth = one.run(4), one.run(1)
    assert sixth == pytest.approx(three.run(1), rel=1e-6)
    assert sixth != pytest.approx(fifth, rel=1e-6)
    assert one.facts["compile_seconds"] > 0 and one.facts["peak_bytes"] > 0


def test_settled_teachers_are_not_overconfident():
    problem = tiny_problem()
    logits = ensemble.logits(problem.model, problem.variables, problem.image[0])
    assert logits.shape == (2, 8, 10)
    assert 0.05 < float(jnp.std(logits)) < 5


def test_without_pytorch_ours_are_timed_alone(monkeypatch):
    monkeypatch.delitem(sys.modules, "benchmarks.peer", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(suite, "measure_rates", lambda _: suite.Rates(1e12, None))
    said = []
    groups = [cases.Group(cases.CASES["tiny"], cases.STEPS["perturb/conf_ods"])]
    budget = timing.Budget(rounds=2, round_seconds=0.0)
    settings = suite.Settings(("unroll", "vmap"), ("eager",), budget)
    ((rows, metadata),) = suite.run(groups, settings, [], said.append)
    assert any("PyTorch cannot be imported" in line for line in said)
    # One member's step does not depend on the strategy.
    assert [(r["contender"], r["strategy"]) for r in rows] == [("edp", "unroll")]
    assert "ratio_to_peer" not in rows[0] and rows[0]["mfu"] > 0
    assert "torch" not in metadata


def test_a_contender_that_fails_leaves_the_others():
    @contextlib.contextmanager
    def start(recipe):
        if recipe.strategy == "vmap":
            raise isolated.Failed("MemoryError: not enough")
        labels = {"contender": "edp", "strategy": recipe.strategy}
        yield timing.Contender(labels, lambda calls: 0.0, 1, {})

    budget = timing.Budget(rounds=2, round_seconds=0.0)
    settings = suite.Settings(("unroll", "vmap"), (), budget)
    group = cases.Group(cases.CASES["tiny"], cases.STEPS["perturb/disagreement"])
    said = []
    rates = suite.Rates(1e12, None)
    rows = suite.measure(group, settings, rates, said.append, start)
    by_strategy = {r["strategy"]: r for r in rows}
    assert by_strategy["vmap"]["error"] == "MemoryError: not enough"
    assert by_strategy["unroll"]["images_per_second"] > 0
    assert "not enough" in said[0]


def test_a_contender_that_ends_while_timed_leaves_the_other_groups():
    @contextlib.contextmanager
    def start(recipe):
        def run(calls):
            if recipe.strategy == "vmap":
                raise isolated.Failed("its process ended with code -9")
            return 0.0

        labels = {"contender": "edp", "strategy": recipe.strategy}
        yield timing.Contender(labels, run, 1, {})

    settings = suite.Settings(("unroll", "vmap"), (), timing.Budget())
    group = cases.Group(cases.CASES["tiny"], cases.STEPS["perturb/disagreement"])
    rows = suite.measure(group, settings, suite.Rates(1e12, None), str, start)
    assert [(r["strategy"], r["error"]) for r in rows] == [
        (strategy, "not timed: its process ended with code -9")
        for strategy in ("unroll", "vmap")
    ]
    assert "failed" in tables.describe(rows[0])


@pytest.mark.long
def test_a_process_that_was_killed_is_told():
    group = cases.Group(cases.CASES["tiny"], cases.STEPS["perturb/ods"])
    with isolated.started(isolated.Recipe(*group, "unroll")) as contender:
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        with pytest.raises(isolated.Failed, match="ended with code -9"):
            contender.run(1)


def test_a_failure_in_a_contenders_process_is_told():
    recipe = isolated.Recipe(
        cases.CASES["tiny"], cases.STEPS["perturb/ods"], peer_mode="no such"
    )
    with (
        pytest.raises(isolated.Failed, match=r"no such|torch"),
        isolated.started(recipe),
    ):
        pass
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("kernels", "value"), [("own", "1"), ("xla", "0")])
def test_kernels_are_chosen_before_a_contender_is_built(kernels, value, monkeypatch):
    sent = []

    class Connection:
        def send(self, message):
            sent.append(message)

        def recv(self):
            raise EOFError

    def build(recipe):
        assert os.environ["EDP_NATIVE"] == value
        return timing.Contender({"contender": "edp"}, lambda calls: 0.0, 1, {})

    monkeypatch.setenv("EDP_NATIVE", "unset")
    monkeypatch.setattr(isolated, "build", build)
    monkeypatch.setattr(isolated.xla, "keep_memory", lambda: None)
    group = cases.Group(cases.CASES["tiny"], cases.STEPS["perturb/ods"])
    recipe = isolated.Recipe(*group, "unroll", kernels=kernels)
    isolated._serve(Connection(), recipe)
    failure, made = sent[0]
    assert failure is None and made["labels"] == {"contender": "edp"}


def test_every_strategy_is_timed_with_each_kernels_and_beside_each_peer():
    started = []

    @contextlib.contextmanager
    def start(recipe):
        started.append((recipe.strategy, recipe.kernels, recipe.peer_mode))
        raise isolated.Failed("not built")
        yield

    settings = suite.Settings(
        ("unroll", "vmap"), ("eager", "compile"), timing.Budget(), 1, ("own", "xla")
    )
    group = cases.Group(cases.CASES["tiny"], cases.STEPS["teacher_step"])
    rows = suite.measure(group, settings, suite.Rates(1, None), str, start)
    assert started == [
        ("unroll", "own", None),
        ("unroll", "xla", None),
        ("vmap", "own", None),
        ("vmap", "xla", None),
        (None, "own", "eager"),
        (None, "own", "compile"),
    ]
    assert [r.get("kernels") for r in rows] == ["native", "xla"] * 2 + [None] * 2


# The peer.


@pytest.mark.parametrize("num_members", [None, 4])
@pytest.mark.parametrize("name", ["tiny", "wrn28_1", "resnet32", "wrn28_10"])
def test_peer_networks_have_our_parameters(name, num_members):
    import_peer()
    import torch

    from benchmarks import peer_models

    case = cases.CASES[name]
    model = ours.model_builder(case)(num_members=num_members)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )
    with torch.device("meta"):
        mean = (0.5,) * 3
        network = peer_models.Network(case.model, 10, mean, mean, num_members)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == models.count_params(variables["params"])


@pytest.mark.parametrize(
    ("model", "num_members", "train"),
    [
        ({"name": "wide_resnet", "depth": 10, "widen_factor": 1}, None, False),
        ({"name": "wide_resnet", "depth": 10, "widen_factor": 1}, 2, True),
        ({"name": "resnet", "depth": 8, "width": 4, "stem_strides": 2}, None, False),
    ],
)
def test_peer_networks_compute_what_ours_do(model, num_members, train):
    """Compares the networks; steps of one are compared below."""
    import_peer()
    import torch

    from benchmarks import peer_models

    case = cases.CASES["tiny"]._replace(model=model)
    flax = ours.model_builder(case)(num_members=num_members)
    x = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3))
    variables = jax.jit(functools.partial(flax.init, train=False))(jax.random.key(1), x)
    apply = functools.partial(flax.apply, train=train, mutable=["batch_stats"])
    expected, _ = jax.jit(apply)(variables, x)
    mean, std = (ours.MEAN,) * 3, (ours.STD,) * 3
    network = peer_models.Network(model, 10, mean, std, num_members)
    peer_models.load_variables(network, variables).train(train)
    with torch.no_grad():
        logits = network(torch.tensor(np.asarray(x)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_every_mode_of_the_peer_can_be_asked_for():
    assert tuple(import_peer().MODES) == suite.PEERS


@pytest.mark.parametrize("name", ["teacher_step", "distill/batch_ensemble/none"])
def test_peer_steps_are_ours(name):
    """Without random numbers, the losses of both agree step after step."""
    peer = import_peer()
    step = cases.STEPS[name]
    theirs = peer.create_contender(tiny_problem(), step, "eager")
    own = ours.create_contender(tiny_problem(), step, "vmap")
    # Each has made a step already.
    losses = [(own.run(1), theirs.run(1)) for _ in range(3)]
    for ours_loss, their_loss in losses:
        assert ours_loss == pytest.approx(their_loss, rel=2e-3)
    assert losses[2][0] < losses[0][0]


def test_peer_perturbations_by_hand():
    peer = import_peer()
    import torch

    # Logits a·x + b, so the direction of ODS is that of a p (w − p·w) summed.
    a, bias = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 0.3, -0.2])

    def network(x):
        return x.sum(dim=(1, 2, 3))[:, None] * a + bias

    x = torch.full((2, 1, 2, 2), 0.5)
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    settings = {"length": 0.1, "temperature": 2.0}
    moved = peer.ods(network, x, weights, by_confidence=False, **settings)
    # p_0 grows with x and p_1 falls; the move is of length 0.1 over four pixels.
    expected = torch.tensor([0.55, 0.45])[:, None, None, None].expand_as(x)
    torch.testing.assert_close(moved, expected)
    confident = peer.ods(network, x, weights, by_confidence=True, **settings)
    confidence = (network(x) / 2).softmax(dim=-1).amax(dim=-1)[:, None, None, None]
    torch.testing.assert_close(confident - x, confidence * (expected - x))
    # Two members apart in a: their variance grows with x.
    both = [network, lambda x: -network(x)]
    torch.testing.assert_close(
        peer.disagreement(both, x, **settings), torch.full_like(x, 0.55)
    )
    # Image i is 1 at place i only: a mixture has λ there, and 1 − λ at another place.
    mixed = peer.mixup(torch.eye(5)[:, None, None])[:, 0, 0]
    assert (mixed >= 0).all() and ((mixed > 0).sum(1) <= 2).all()
    torch.testing.assert_close(mixed.sum(1), torch.ones(5))
    assert (mixed.diag() > 0).all()


# The command.


def run_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.long
def test_command_writes_rows_and_a_table(tmp_path):
    done = run_command(
        "--cases=tiny",
        f"--steps=perturb/ods,{cases.HEADLINE_STEP}",
        "--strategies=vmap",
        "--rounds=2",
        "--round_seconds=0",
        "--repeats=0",
        f"--output={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "benchmark.json").read_text())
    metadata = json.loads((tmp_path / "machine.json").read_text())
    peer = {("pytorch", None)} if "torch" in metadata else set()
    for name in ("perturb/ods", cases.HEADLINE_STEP):
        group = [r for r in rows if r["what"] == name]
        contenders = {(r["contender"], r.get("strategy")) for r in group}
        assert contenders == {("edp", "vmap")} | peer
        assert len(group) == len(contenders)
    for r in rows:
        assert r["case"] == "tiny" and r["backend"] == "cpu"
        assert r["batch_size"] / r["seconds_per_step"] == r["images_per_second"]
        assert len(r["round_seconds_per_step"]) == 2
        assert (r["ratio_to_peer"] is not None) == ("torch" in metadata)
        assert 0 < r["mfu"] < 1 and r["flops"] > 0
        if r["contender"] == "edp":
            assert r["peak_bytes"] > 0 and r["compile_seconds"] > 0
            assert r["compiler_flops"] > 0
    assert metadata["command"].startswith("python -m benchmarks --cases=tiny")
    assert metadata["peak_flops_per_second"]["float32"]["matmul"] > 0
    table = (tmp_path / "benchmark.md").read_text()
    assert table.count("| tiny |") == len(rows)
    assert tables.format_table(rows) in done.stdout


# What fits.


@pytest.mark.parametrize(
    ("limit", "batch"), [(99, 0), (100, 8), (900, 80), (904, 88), (1234, 120)]
)
def test_largest_batch_by_hand(limit, batch):
    asked = []

    def bytes_of(size):
        asked.append(size)
        return 20 + 10 * size + 4 * (size >= 88)  # not quite linear

    largest, needed = capacity.largest_batch(bytes_of, limit)
    assert largest == batch
    assert needed == bytes_of(max(batch, 8))
    assert len(asked) < 9


@pytest.mark.long
def test_saving_memory_lets_more_fit():
    step = cases.STEPS["distill/single/disagreement"]
    case = cases.CASES["tiny"]._replace(num_members=4, batch_size=64)
    plain, least = (
        capacity.peak_bytes(way, step) for way in capacity.ways(case).values()
    )
    assert least < plain


def test_command_refuses_in_one_line(tmp_path):
    done = run_command("--cases=tinny", f"--output={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: cases='tinny'")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_torch_teachers_are_timed_beside_the_same_in_flax():
    pytest.importorskip("torch")
    from benchmarks import torch_teachers

    budget = timing.Budget(rounds=1, round_seconds=0.0, repeats=0)
    found = torch_teachers.compare(cases.CASES["tiny"], "disagreement", budget)
    assert len(found.flax) == len(found.torch) == 1
    assert found.ratio == found.flax[0] / found.torch[0] > 0
