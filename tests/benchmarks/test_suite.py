"""Tests the comparison of contenders: who is timed, ratios and failures."""

import contextlib
import sys

from benchmark_rows import row

from benchmarks import cases, isolated, suite, tables, timing


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
