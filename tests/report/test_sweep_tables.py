"""Tests of a sweep's results on synthetic runs, in tables and in the figure."""

import json

import numpy as np
import pytest
from seed_runs import make_run
from sweep_plans import plan, rows_of

from configs import digits
from edp.errors import InputError
from edp.report.figures import sweep_figure
from edp.report.seeds import sweep_results, sweep_tables


def test_a_run_is_done_when_it_ended_with_the_same_settings(tmp_path):
    before, other = plan("distill.alpha=0.5", seeds="0:2")
    assert not sweep_results.is_done(tmp_path, before)
    sweep_results.mark_done(tmp_path, before)
    assert sweep_results.is_done(tmp_path, before) and not sweep_results.is_done(
        tmp_path, other
    )
    config = digits.get_config()
    config.evaluation.ood_sets = ("noise",)
    (after,) = plan("distill.alpha=0.5", seeds="0", config=config)
    assert after.directory == before.directory and not sweep_results.is_done(
        tmp_path, after
    )


@pytest.fixture(scope="module")
def points():
    return plan("distill.step_size=0.002,0.004", seeds="0:3")


@pytest.fixture
def directory(points, tmp_path):
    for point in points:
        better = point.setting.name == "step_size=0.004"
        path = tmp_path / point.directory
        path.mkdir(parents=True)
        make_run(path, point.seed, (1.0, 2.0 + 0.5 * better, 2.2))
        sweep_results.mark_done(tmp_path, point)
    return tmp_path


def test_the_table_of_a_sweep(points, directory):
    result = sweep_results.summarize_sweep(directory, points)
    assert [s["name"] for s in result["settings"]] == [
        "step_size=0.002",
        "step_size=0.004",
    ]
    assert result["settings"][1]["values"] == {"distill.step_size": "0.004"}
    assert result["settings"][0]["seeds"] == [0, 1, 2]
    # Equal teachers appear once, without a setting.
    assert [(row.get("setting"), row["model"]) for row in result["rows"][:2]] == [
        (None, "DE-1"),
        (None, "DE-2"),
    ]
    assert result["rows"][0]["cnll"]["mean"] == 2.0
    assert len(result["rows"]) == 2 + 2 * 3 and result["notes"] == []
    first, second = rows_of(result, "be_none")
    found, by_seed = second["difference"]["cnll"], "by_seed"
    for seed in "012":
        of = (row["cnll"][by_seed][seed] for row in (second, first))
        assert found[by_seed][seed] == pytest.approx(next(of) - next(of))
    assert found["mean"] < 0 and 0 < found["p"] < 1 and "difference" not in first
    # Chosen on the validation images alone.
    assert second["validation_cnll"]["mean"] < first["validation_cnll"]["mean"]
    assert second["best"] and "best" not in first
    assert result["best"]["model"] == "be_none"
    assert result["best"]["setting"] == "step_size=0.004"
    # A student that no setting changes has no differences and no best setting.
    same = rows_of(result, "single_none")
    assert same[1]["difference"]["cnll"]["mean"] == 0
    assert not any("best" in row for row in same)


def test_the_best_is_chosen_on_validation_and_not_on_test(points, directory):
    """The first setting wins the test set, the second the validation set."""
    for point in points:
        path = directory / point.directory / "predictions/be_none.npz"
        with np.load(path) as file:
            arrays = dict(file)
        if point.setting.name == "step_size=0.004":
            arrays["test_probs"] = np.full_like(arrays["test_probs"], 0.25)
        np.savez(path, **arrays)
        if point.setting.name == "step_size=0.004":
            results = directory / point.directory / "results.json"
            rows = json.loads(results.read_text())
            rows[3]["cnll"] = np.log(4)  # of uniform predictions
            results.write_text(json.dumps(rows))
    result = sweep_results.summarize_sweep(directory, points)
    first, second = rows_of(result, "be_none")
    assert second["best"] and second["cnll"]["mean"] == pytest.approx(np.log(4))
    assert second["cnll"]["mean"] > first["cnll"]["mean"]


def test_what_is_not_done_is_left_out_and_said(points, directory):
    for point in (points[1], points[3]):
        (directory / point.directory / "finished.json").unlink()
    result = sweep_results.summarize_sweep(directory, points)
    assert result["settings"][1]["seeds"] == [2]
    assert result["notes"] == [
        "Left out because unfinished: step_size=0.004/seed0, step_size=0.004/seed1."
    ]
    second = rows_of(result, "be_none")[1]
    assert second["difference"]["cnll"]["by_seed"].keys() == {"2"}
    # One seed is not compared with three.
    assert "best" not in second and result["best"]["setting"] == "step_size=0.002"
    text = sweep_tables.format_markdown(result)
    assert "| seeds |" in text and "Left out because unfinished" in text
    with pytest.raises(InputError, match="has no finished run"):
        sweep_results.summarize_sweep(directory / "elsewhere", points)


def test_settings_of_other_images_are_not_compared(tmp_path):
    points = plan("data.validation_size=150,200", seeds="0")
    for point in points:
        (tmp_path / point.directory).mkdir(parents=True)
        make_run(tmp_path / point.directory, 0)
        sweep_results.mark_done(tmp_path, point)
    result = sweep_results.summarize_sweep(tmp_path, points)
    assert "best" not in result and not any("best" in row for row in result["rows"])
    assert "Validation images differ" in result["notes"][0]
    # Other teachers: those of each setting.
    assert [row["setting"] for row in rows_of(result, "DE-2")] == [
        "validation_size=150",
        "validation_size=200",
    ]
    assert "DE-2 " not in sweep_figure.draw(result)  # no level that is of them all


def test_files_of_a_sweep(points, directory):
    result = sweep_results.summarize_sweep(directory, points)
    assert sweep_tables.write_sweep(result, directory) == [
        "sweep.svg",
        "sweep.json",
        "sweep.md",
    ]
    assert json.loads((directory / "sweep.json").read_text()) == result
    text = (directory / "sweep.md").read_text()
    (best,) = [
        line for line in text.splitlines() if line.startswith("| **step_size=0.004**")
    ]
    assert "**be\\_none**" in best or "**be_none**" in best
    assert "Best on validation: be_none at step_size=0.004" in text.replace("\\", "")
    assert text.count("±") > 20 and "![cNLL by setting](sweep.svg)" in text
    svg = (directory / "sweep.svg").read_text()
    assert "Calibrated NLL by distill.step_size: DE-1 2.0000" in svg
    terminal = sweep_tables.format_terminal(result, 100)
    assert terminal.count("★") == 1 and "Δ cNLL" in terminal
    assert max(map(len, terminal.splitlines()[:-1])) <= 100


def test_settings_that_are_not_numbers_are_drawn_as_dots(tmp_path):
    points = plan("distill.perturbation=ods,gaussian", seeds="0:2")
    for point in points:
        (tmp_path / point.directory).mkdir(parents=True)
        make_run(tmp_path / point.directory, point.seed)
        sweep_results.mark_done(tmp_path, point)
    svg = sweep_figure.draw(sweep_results.summarize_sweep(tmp_path, points))
    assert "be_none, perturbation=ods" in svg and "DE-2" in svg
