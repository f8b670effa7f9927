"""Tests that the other commands refuse bad input, and say what is to be run first."""

import pytest
import refusals
from launching import snapshot, tiny

# Other commands: case -> command, flags and words of the message.
OTHERS = {
    "summary of nothing": ("summarize", ["--workdirs="], ["workdirs is empty"]),
    "summary of no run": (
        "summarize",
        ["--workdirs={empty}", "--out={root}/summary"],
        ["there is no {empty}/config.json"],
    ),
    "summary of a run twice": (
        "summarize",
        ["--workdirs={finished},{finished}", "--out={root}/summary"],
        ["{finished} and {finished} both have seed=0"],
    ),
    "summary into a file": (
        "summarize",
        ["--workdirs={finished}", "--out={a_file}"],
        ["out='{a_file}' cannot be used"],
    ),
    "benchmark of an unknown case": ("benchmarks", ["--cases=none"], ["none"]),
    "benchmark of an argument": ("benchmarks", ["quick"], ["'quick'"]),
    "report without results": ("report", [], ["results.json"]),
    "distillation without teachers": (
        "distill",
        [],
        ["run launch.train_teachers first"],
    ),
    "import of no members": ("import_teachers", [], ["--members is required"]),
    "import of too few": (
        "import_teachers",
        ["--members={empty}"],
        ["--members names 1 networks of teachers; accepted: 2"],
    ),
    "import of what is no checkpoint": (
        "import_teachers",
        ["--members={empty},{a_file}"],
        ["member 0 ({empty}) is no checkpoint of variables"],
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_commands_refuse_too(case, places, server, tmp_path):
    command, flags, words = OTHERS[case]
    if command not in ("summarize", "benchmarks"):
        flags = [*tiny(tmp_path / "run"), *flags]
    elif not any(flag.startswith("--out=") for flag in flags):
        out = "out" if command == "summarize" else "output"
        flags = [*flags, f"--{out}={tmp_path}/run"]
    refusals.check(server, places, tmp_path, command, flags, words)


def test_commands_say_which_is_to_be_run_first(server, tmp_path):
    done = server.run("evaluate", *tiny(tmp_path / "run"))
    assert done.code == 2 and done.stderr.count("\n") == 1
    assert "run launch.train_teachers first" in done.stderr
    assert snapshot(tmp_path) == {}
    assert not (tmp_path / "run/teachers").exists()
