"""Tests that bad flags and configuration files are refused, and devices named."""

import pytest
import refusals
from launching import Commands, tiny

# Case -> flags and words of the message. Later flags win.
BAD = {
    "no workdir": (["--workdir="], ["--workdir is required"]),
    "no config": (["--config="], ["--config"]),
    "config is not there": (["--config=configs/none.py"], ["configs/none.py"]),
    "config raises": (["--config={raises}"], ["{raises}", "line 4", "ZeroDivision"]),
    "config is not Python": (["--config={syntax}"], ["{syntax}", "SyntaxError"]),
    "config gives nothing": (["--config={nothing}"], ["{nothing}", "None"]),
    "config sets a wrong type": (
        ["--config={wrong_type}"],
        ["{wrong_type}", "line 5", "num_epochs"],
    ),
    "config with typos": (
        ["--config={typos}"],
        [
            "seed is missing",
            "teachers.num_epoch is no setting; did you mean teachers.num_epochs?",
            "students.single_none.perturbatoin is no setting",
            "students.single_none.perturbation?",
        ],
    ),
    "config is a directory": (["--config={empty}"], ["{empty}"]),
    "variant": (
        ["--config=configs/default.py:fast"],
        ["variant 'fast'; accepted: debug"],
    ),
    "no students": (["--config={no_students}"], ["students is empty"]),
    "names of students": (
        ["--config={student_names}"],
        ["students.a b: a name is of letters", "students.teachers: a name"],
    ),
    "argument": (["runs/digits"], ["'runs/digits'", "--"]),
    "unknown flag": (["--confgi=3"], ["confgi"]),
    "unknown student": (["--only=single_noen"], ["single_noen", "single_none"]),
    "debug flag": (["--debug=maybe"], ["--debug=maybe"]),
    "flag file": (["--flagfile={root}/none"], ["{root}/none"]),
    "no processes": (["--num_processes=0"], ["--num_processes=0"]),
    "process below 0": (["--process_id=-1"], ["--process_id=-1"]),
    "processes without an address": (
        ["--num_processes=2"],
        ["--coordinator_address and --process_id must be given too"],
    ),
    "coordinator address": (
        ["--coordinator_address=here", "--num_processes=2", "--process_id=1"],
        ["--coordinator_address='here' must be host:port"],
    ),
    "process id": (
        ["--coordinator_address=here:1", "--num_processes=2", "--process_id=2"],
        ["--process_id=2 must be from 0 to 1"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_a_line_and_nothing_is_written(case, refused):
    refused(*BAD[case])


@pytest.mark.parametrize(
    ("flag", "cause"),
    [
        ("--config={raises}", "ZeroDivisionError"),
        ("--config.data.path=x", "InputError"),
    ],
)
def test_debug_shows_where_bad_input_was_found(flag, cause, places, server, tmp_path):
    flags = [*tiny(tmp_path / "run"), flag.format(**places), "--config.data.source=npz"]
    done = server.run("run", *flags, "--debug")
    assert done.code == 2
    assert "Traceback" in done.stderr and cause in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_missing_devices_are_named(places, tmp_path):
    env = {"JAX_PLATFORMS": "nonsense"}
    done = Commands(tmp_path).run("run", *tiny(tmp_path / "run"), env=env)
    words = ["JAX_PLATFORMS='nonsense' finds no such", "or unset"]
    refusals.assert_refused(done, words, places)
    assert not (tmp_path / "run").exists()
