"""Tests contenders in processes of their own: kernels and failures."""

import multiprocessing
import os

import pytest

from benchmarks import cases, isolated, timing


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
