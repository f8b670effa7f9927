"""Tests which students' steps are compiled, and when."""

import threading
from types import SimpleNamespace

import pytest

from edp.experiment import ahead


@pytest.fixture
def begun(monkeypatch):
    """Names in the order in which they are compiled; 'done' is complete."""
    names = []

    def compile_student(experiment, name):
        names.append(name)
        if name == "bad":
            raise ValueError(name)
        return f"compiled {name}"

    def student_stage(run, name):
        return SimpleNamespace(record={} if name == "done" else None)

    monkeypatch.setattr(ahead.train, "compile_student", compile_student)
    monkeypatch.setattr(ahead.restore, "student_stage", student_stage)
    monkeypatch.setattr(ahead.jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(ahead.jax, "device_count", lambda: 1)
    return names


def an_experiment(train=(), mesh=None):
    return SimpleNamespace(run=None, data=SimpleNamespace(train=train), mesh=mesh)


def test_compiles_one_student_at_a_time_without_complete_ones(begun):
    steps = ahead.Ahead(an_experiment(), ["done", "a", "b"])
    steps.begin_next()
    assert steps.compiled("a")() == "compiled a"
    assert begun == ["a"]
    steps.begin_next()
    assert steps.compiled("b")() == "compiled b"
    steps.begin_next()  # nothing is left
    assert begun == ["a", "b"]


def test_other_work_begins_once_while_the_last_student_trains(begun):
    ran = threading.Event()

    def work():
        begun.append("work")
        ran.set()

    steps = ahead.Ahead(an_experiment(), ["a"], work)
    steps.begin_next()
    steps.compiled("a")()
    assert begun == ["a"]
    for _ in range(2):
        steps.begin_next()
    assert ran.wait(10) and begun == ["a", "work"]


def test_student_that_trains_already_is_not_compiled_again(begun):
    steps = ahead.Ahead(an_experiment(), ["a", "b"])
    assert steps.compiled("a") is None
    steps.begin_next()
    assert steps.compiled("b")() == "compiled b"
    assert begun == ["b"]


def test_errors_are_raised_where_the_program_is_needed(begun):
    steps = ahead.Ahead(an_experiment(), ["bad"])
    steps.begin_next()
    with pytest.raises(ValueError, match="bad"):
        steps.compiled("bad")()


@pytest.mark.parametrize("elsewhere", [{"train": None}, {"mesh": object()}])
def test_nothing_is_compiled_ahead_of_streamed_data_or_on_a_mesh(begun, elsewhere):
    steps = ahead.Ahead(an_experiment(**elsewhere), ["a"])
    steps.begin_next()
    assert steps.compiled("a") is None
    assert begun == []
