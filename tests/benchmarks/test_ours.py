"""Tests the contenders of edp: their steps and their teachers."""

import jax.numpy as jnp
import pytest

from benchmarks import cases, ours
from edp import ensemble


def test_several_steps_in_one_program_are_the_same_steps(tiny_problem):
    step = cases.STEPS["perturb/conf_ods"]
    one = ours.create_contender(tiny_problem, step, "unroll")
    three = ours.create_contender(tiny_problem, step, "unroll", steps_per_call=3)
    assert three.steps_per_call == 3
    # Each has made one call already: these end at the sixth step, whose draws are
    # its own.
    fifth, sixth = one.run(4), one.run(1)
    assert sixth == pytest.approx(three.run(1), rel=1e-6)
    assert sixth != pytest.approx(fifth, rel=1e-6)
    assert one.facts["compile_seconds"] > 0 and one.facts["peak_bytes"] > 0


def test_settled_teachers_are_not_overconfident(tiny_problem):
    logits = ensemble.logits(
        tiny_problem.model, tiny_problem.variables, tiny_problem.image[0]
    )
    assert logits.shape == (2, 8, 10)
    assert 0.05 < float(jnp.std(logits)) < 5
