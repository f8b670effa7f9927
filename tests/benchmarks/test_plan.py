"""Tests what the benchmark's options measure, and the options that it refuses."""

import pytest

from benchmarks import cases, plan
from edp import ensemble
from edp.errors import InputError

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
