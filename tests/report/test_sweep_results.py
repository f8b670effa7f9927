"""Tests of comparisons of runs with different settings."""

import subprocess
import sys

import documents
import pytest
from seed_runs import STUDENTS, make_predictions, make_run, rewrite, set_in

from edp.errors import InputError
from edp.evaluation.predictions import save_predictions
from edp.report.seeds import runs, sweep_results, sweep_tables


def test_runs_of_different_settings_are_grouped_and_compared(workdirs, tmp_path):
    students = {name: {"perturbation": p} for name, p in STUDENTS.items()}
    students["single_ods"] = students["single_ods"] | {"step_size": 0.04}
    other = make_run(tmp_path / "other", 1, (1.0, 2.0, 3.0), students=students)
    of = [workdirs[1], other, workdirs[0]]
    groups = runs.read_groups(of)
    key = "students.single_ods.step_size"
    assert [group.values for group in groups] == [{key: "None"}, {key: "0.04"}]
    assert [group.name for group in groups] == ["step_size=None", "step_size=0.04"]
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1], [1]]
    result = sweep_results.summarize_groups(groups)
    first, second = (r for r in result["rows"] if r["model"] == "single_ods")
    # Paired on the seed that both have.
    difference = second["difference"]["cnll"]["by_seed"]
    by_seed = [row["cnll"]["by_seed"]["1"] for row in (first, second)]
    assert difference == {"1": pytest.approx(by_seed[1] - by_seed[0])}
    assert difference["1"] < 0 and "difference" not in first
    (same,) = (
        r["difference"]["cnll"]["mean"]
        for r in result["rows"]
        if r["model"] == "be_none" and r.get("difference")
    )
    assert same == 0
    # Where the images differ, nothing is compared.
    rewrite(other / "config.json", set_in("data", train_size=4))
    result = sweep_results.summarize_groups(runs.read_groups(of))
    assert "Validation images differ" in result["notes"][0] and "best" not in result
    with pytest.raises(InputError, match="both have seed=1"):
        runs.read_groups([*of, other])
    # Many settings make no name.
    rewrite(other / "config.json", set_in("data", source="x" * 60))
    groups = runs.read_groups(of)
    assert [group.name for group in groups] == ["run0, run1", "other"]
    text = sweep_tables.format_markdown(sweep_results.summarize_groups(groups))
    shown = text.replace("\\", "")
    assert "- run0, run1 (data.source=digits, data.train_size=80, " in shown


def test_the_best_of_settings_with_different_seeds(workdirs, tmp_path):
    """The other setting is better in the shared seed 1, but has a hard seed 3."""
    students = {name: {"perturbation": p, "x": 1} for name, p in STUDENTS.items()}
    others = [
        make_run(tmp_path / f"other{seed}", seed, strengths, students=students)
        for seed, strengths in ((1, (1.0, 2.0, 4.0)), (3, (0.1, 0.1, 0.1)))
    ]
    groups = runs.read_groups([*workdirs[:2], *others])
    result = sweep_results.summarize_groups(groups)
    first, second = (r for r in result["rows"] if r["model"] == "single_ods")
    means = [row["validation_cnll"]["mean"] for row in (first, second)]
    assert means[0] < means[1] and second["best"] and "best" not in first
    assert result["best"]["setting"] == groups[1].name
    (note,) = result["notes"]
    assert "lowest mean over the seeds 1, which all have" in note
    # Without a shared seed, the means decide.
    groups = runs.read_groups([workdirs[0], others[0]])
    (note,) = sweep_results.summarize_groups(groups)["notes"]
    assert "lowest mean of each over its own" in note
    groups = runs.read_groups([workdirs[1], others[0]])
    assert not sweep_results.summarize_groups(groups)["notes"]


def test_a_missing_first_setting_is_noted(workdirs):
    groups = runs.read_groups(workdirs[:2])
    result = sweep_results.summarize_groups(groups, "step_size=0.1")
    assert result["notes"] == [
        "No run of the first setting, step_size=0.1, is finished: no Δ."
    ]
    assert not any("difference" in row for row in result["rows"])


def test_ensembles_alone_are_compared(copies, tmp_path):
    for seed, (path, size) in enumerate(zip(copies, (80, 40), strict=True)):
        rewrite(path / "results.json", lambda rows: rows[:2])
        rewrite(path / "config.json", set_in("data", train_size=size))
        save_predictions(path / "predictions/teachers.npz", make_predictions(seed, 1.0))
    result = sweep_results.summarize_groups(runs.read_groups(copies))
    found = [(row["setting"], row["model"]) for row in result["rows"]]
    assert found == [
        ("train_size=80", "DE-1"),
        ("train_size=80", "DE-2"),
        ("train_size=40", "DE-1"),
        ("train_size=40", "DE-2"),
    ]
    assert "best" not in result
    # There is nothing to draw.
    written = sweep_tables.write_sweep(result, tmp_path / "out")
    assert written == ["sweep.json", "sweep.md"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*written}
    assert "svg" not in (tmp_path / "out/sweep.md").read_text()


def test_the_command_says_which_settings_differ(workdirs, tmp_path):
    other = make_run(tmp_path / "other", 1, dtype="bfloat16")
    given = f"--workdirs={workdirs[0]},{workdirs[1]},{other}"
    command = [sys.executable, "-m", "launch.summarize", given]
    done = subprocess.run(
        [*command, f"--out={tmp_path / 'out'}", "--baseline=be_none"],
        cwd=documents.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done
    assert "  setting1 (run0, run1): dtype=None\n" in done.stdout
    assert "  setting2 (other): dtype=bfloat16\n" in done.stdout
    found = {str(p.relative_to(tmp_path / "out")) for p in tmp_path.rglob("out/**/*")}
    assert {"comparison.md", "comparison.json", "comparison.svg"} <= found
    assert {"setting1/summary.md", "setting2/summary.json"} <= found
    text = (tmp_path / "out/comparison.md").read_text()
    assert text.startswith("# Comparison\n") and "(comparison.svg)" in text
    assert "Against be_none" in (tmp_path / "out/setting2/summary.md").read_text()
