"""Tests the comparison of students' times with their FLOPs."""

import jax
import numpy as np

from benchmarks import cases, limits, ours, students
from benchmarks.cases import Step
from edp import ensemble
from edp.students.source import COLLECTION


def test_times_and_flops_beside_the_first_student_by_hand():
    rounds = [[2.0, 1.5], [4.0, 2.0], [1.0, 0.6]]  # ratios of 0.75, 0.5, 0.6
    lines = students.table(["single", "packed"], [100, 50], rounds).splitlines()
    assert lines[2] == "| single | 2000.0 | 1.00 | 1.00 | 1.00 |"
    assert lines[3] == "| packed | 1500.0 | 0.60 | 0.50 | 1.20 |"


def test_flops_of_students_by_hand():
    case = cases.CASES["tiny"]
    problem = ours.create_problem(case, ["single", "packed", "mimo", "bridge"])
    source = problem.students["bridge"][COLLECTION]
    first = ensemble.select(problem.variables, 0)
    jax.tree.map(np.testing.assert_array_equal, source, first)

    def count(kind, student):
        perturbation = "none" if kind == "distill" else None
        return students.count_flops(problem, Step(kind, student, perturbation))

    single = count("predict", "single")
    network = ours.flops(case, cases.STEPS["perturb/ods"]) // 2
    assert single == network
    # α = M = 2: two networks of the plain width.
    assert count("predict", "packed") == 2 * single
    # One network with two heads; in training, with twice the input channels.
    stem = limits.convolution_flops((8, 8, 8, 4), (3, 3, 3, 4))
    head = limits.matmul_flops(8, 16, 10)
    assert count("predict", "mimo") == single + head
    # Two teachers, and a pass with two gradients; the images need none.
    assert count("distill", "single") == 2 * network + 3 * network - stem
    added = count("distill", "mimo") - count("distill", "single")
    assert added == 3 * head + 2 * stem
