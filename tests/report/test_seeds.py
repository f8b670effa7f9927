"""Tests of summaries over seeds: statistics, synthetic runs, tables and figures."""

import itertools
import json
import math
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import documents
import numpy as np
import pytest
from scipy import stats
from seed_runs import STUDENTS, make_predictions, make_run

from edp import metrics
from edp.errors import InputError
from edp.evaluation import scoring
from edp.evaluation.predictions import save_predictions
from edp.metrics import statistics
from edp.report.figures import seed_figures
from edp.report.figures.distance import by_distance
from edp.report.figures.svg import standalone
from edp.report.seeds import runs, summary, sweep_results, sweep_tables, tables


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    return [make_run(base / f"run{seed}", seed) for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def summed(workdirs):
    return summary.summarize_runs(runs.read_runs(workdirs))


@pytest.fixture
def copies(workdirs, tmp_path):
    """Two of the workdirs, to change."""
    return [shutil.copytree(path, tmp_path / path.name) for path in workdirs[:2]]


def rewrite(path, change):
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def without(section, key):
    return lambda value: value[section].pop(key) and None


def find(rows, **wanted):
    (row,) = (r for r in rows if all(r.get(k) == v for k, v in wanted.items()))
    return row


# Statistics.


def test_mean_and_error_by_hand():
    mean, error = metrics.mean_and_error([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert error == pytest.approx(math.sqrt(7 / 3) / math.sqrt(3))
    assert metrics.mean_and_error([0.3]) == (0.3, None)
    for wrong in ([], [1.0, math.nan]):
        with pytest.raises(InputError):
            metrics.mean_and_error(wrong)


def test_paired_p_value_by_hand():
    # t = 2 √3 with two degrees of freedom, whose distribution has a closed form.
    expected = 1 - math.sqrt(12 / (12 + 2))
    assert metrics.paired_p_value([1.0, 2.0, 3.0]) == pytest.approx(expected)
    ours, theirs = np.random.default_rng(0).normal(size=(2, 5))
    expected = stats.ttest_rel(ours, theirs).pvalue
    assert metrics.paired_p_value(ours - theirs) == pytest.approx(expected)
    # The test is undefined.
    for differences in ([0.1], [0.0, 0.0], [0.3 - 0.2, 0.1]):
        assert metrics.paired_p_value(differences) is None


def test_bootstrap_against_a_direct_loop(monkeypatch):
    values = np.random.default_rng(1).normal(size=(30, 2)) ** 2
    rng = np.random.default_rng(0)
    means = [values[rng.integers(30, size=30)].mean(0) for _ in range(500)]
    expected = np.percentile(means, [2.5, 97.5], axis=0)
    found = metrics.bootstrap_intervals(values, num_resamples=500)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    for chunk in (1, 77):
        monkeypatch.setattr(statistics, "_CHUNK", chunk)
        again = metrics.bootstrap_intervals(values, num_resamples=500)
        np.testing.assert_allclose(again, expected, rtol=1e-12)


def test_bootstrap_covers_what_it_should():
    rng = np.random.default_rng(2)
    values = np.concatenate([np.zeros((400, 1)), rng.normal(size=(400, 1))], axis=1)
    intervals = metrics.bootstrap_intervals(values)
    assert intervals[:, 0].tolist() == [0.0, 0.0]
    # For many samples, the normal interval.
    half = 1.96 * values[:, 1].std() / 20
    expected = values[:, 1].mean() + half * np.array([-1, 1])
    np.testing.assert_allclose(intervals[:, 1], expected, atol=0.06 * half)
    # About 95 % of the intervals of 200 columns contain the true mean.
    intervals = metrics.bootstrap_intervals(
        rng.normal(size=(100, 200)), num_resamples=999
    )
    held = ((intervals[0] < 0) & (intervals[1] > 0)).mean()
    assert 0.88 <= held <= 0.99


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros(3), {}, "shape \\(3,\\)"),
        (np.full((3, 1), np.nan), {}, "finite"),
        (np.zeros((3, 1)), {"num_resamples": 0}, "num_resamples=0 is too small"),
        (np.zeros((3, 1)), {"level": 1.0}, "level=1.0 is out of range; accepted"),
    ],
)
def test_bootstrap_refuses(values, options, message):
    with pytest.raises(InputError, match=message):
        metrics.bootstrap_intervals(values, **options)


# Synthetic runs.


def test_means_over_seeds_by_hand(summed):
    assert [run["seed"] for run in summed["runs"]] == [0, 1, 2]
    de_1, de_2 = summed["models"][:2]
    # cNLL of 1, 2, 3 and of 0.5, 1, 1.5.
    assert de_1["cnll"]["by_seed"] == {"0": 1.0, "1": 2.0, "2": 3.0}
    assert de_1["cnll"]["mean"] == 2.0
    assert de_1["cnll"]["se"] == pytest.approx(1 / math.sqrt(3))
    assert de_1["train_accuracy"]["mean"] == pytest.approx(0.99)
    assert "train_accuracy" not in de_2 and "gap_closed" not in de_2
    assert (de_1["gap_closed_of_means"], de_2["gap_closed_of_means"]) == (0.0, 1.0)
    student = find(summed["models"], model="single_ods")
    cnll = student["cnll"]["by_seed"].values()
    shares = [(1 + s - v) / (0.5 + s / 2) for s, v in enumerate(cnll)]
    assert student["gap_closed"]["mean"] == pytest.approx(np.mean(shares))
    assert student["gap_closed_of_means"] == pytest.approx(2 - np.mean([*cnll]))
    assert student["gap_closed_of_means"] != pytest.approx(np.mean(shares), abs=0.01)
    assert student["train_seconds"]["mean"] == 11.0
    assert student["train_seconds"]["se"] == pytest.approx(1 / math.sqrt(3))
    assert student["logged_accuracy"]["mean"] == 1.25
    assert student["train_accuracy"]["mean"] == 0.75
    assert student["perturbation"] == "ods" and student["kind"] == "student"


def test_differences_are_paired(summed):
    made = {
        name: [make_predictions(s, x) for s in range(3)]
        for name, x in (("single_none", 1.0), ("single_ods", 2.2))
    }

    def scores(predictions):
        arrays = [a[0] if a.ndim == 3 else a for a in predictions]
        return scoring.scores(*arrays)

    ours, theirs = ([scores(p) for p in made[n]] for n in ("single_ods", "single_none"))
    row = find(summed["comparisons"], baseline="single_none", model="single_ods")
    for metric in ("cnll", "accuracy"):
        differences = [a[metric] - b[metric] for a, b in zip(ours, theirs, strict=True)]
        found = row[metric]
        assert list(found["by_seed"].values()) == pytest.approx(differences)
        assert found["mean"] == pytest.approx(np.mean(differences))
        expected = np.std(differences, ddof=1) / math.sqrt(3)
        assert found["se"] == pytest.approx(expected)
        expected = stats.ttest_rel(
            *([r[metric] for r in rows] for rows in (ours, theirs))
        )
        assert found["p"] == pytest.approx(expected.pvalue)
        low, high = found["interval"]
        assert low < found["mean"] < high
    # Seeds are averaged for each image before images are resampled.
    correct = np.mean(
        [
            (a.test_probs[0].argmax(-1) == a.test_labels)
            - 1.0 * (b.test_probs[0].argmax(-1) == b.test_labels)
            for a, b in zip(made["single_ods"], made["single_none"], strict=True)
        ],
        axis=0,
    )
    rng = np.random.default_rng(0)
    means = [correct[rng.integers(50, size=50)].mean() for _ in range(10_000)]
    expected = np.percentile(means, [2.5, 97.5])
    assert row["accuracy"]["interval"] == pytest.approx(expected.tolist())


def test_the_best_plain_student_is_chosen_on_validation(summed):
    # be_none has the stronger signal; single_ods, still stronger, is not plain.
    best = summed["best_plain"]
    assert best["model"] == "be_none"
    of = [make_predictions(seed, 2.0) for seed in range(3)]
    swapped = [(p.validation_probs[0], p.validation_labels) for p in of]
    expected = [scoring.scores(*split, *split)["cnll"] for split in swapped]
    assert best["validation_cnll"]["mean"] == pytest.approx(np.mean(expected))
    pairs = [(row["baseline"], row["model"]) for row in summed["comparisons"]]
    assert pairs == [
        ("single_none", "be_none"),
        ("single_none", "single_ods"),
        ("be_none", "single_none"),
        ("be_none", "single_ods"),
    ]
    there = find(summed["comparisons"], baseline="be_none", model="single_none")
    back = find(summed["comparisons"], baseline="single_none", model="be_none")
    assert there["cnll"]["mean"] == -back["cnll"]["mean"]


def test_identical_students_differ_by_exactly_nothing(tmp_path):
    path = make_run(tmp_path / "run", 0, strengths=(1.5, 1.5, 1.5))
    summed = summary.summarize_runs(runs.read_runs([path]), ["single_none"])
    for row in summed["comparisons"]:
        for metric in ("cnll", "accuracy"):
            nothing = {"mean": 0.0, "by_seed": {"0": 0.0}, "interval": [0.0, 0.0]}
            assert row[metric] == nothing
    # One seed has no standard error.
    assert "±" not in tables.format_terminal(summed)
    lines = tables.format_markdown(summed).splitlines()
    assert not any("±" in line for line in lines if line.startswith("| "))


def test_diversity_and_matches(summed):
    train, _, own, far = summed["diversity"]
    assert train["pairwise_kl"]["mean"] == pytest.approx(0.2)
    assert train["pairwise_kl"]["se"] == pytest.approx(0.1 / math.sqrt(3))
    assert own["inputs"] == "single_ods" and own["step_size"] == 0.02
    assert far["inputs"] == "single_ods@0.04"
    row = find(summed["students"], inputs="perturbed")
    assert row["match_kl"]["mean"] == pytest.approx(1.2)
    assert row["tempered_match_kl"]["mean"] == pytest.approx(0.1)


def test_what_only_some_runs_have(copies):
    rewrite(copies[1] / "config.json", without("students", "be_none"))
    rewrite(copies[1] / "results.json", lambda rows: [*rows[:3], rows[4]])
    (copies[1] / "analysis.json").unlink()
    rows = [{"model": "DE-2", "set": "noise|x", "score": "entropy", "auroc": 0.75}]
    (copies[0] / "ood.json").write_text(json.dumps({"rows": rows}))
    summed = summary.summarize_runs(runs.read_runs(copies))
    student = find(summed["models"], model="be_none")
    assert student["seeds"] == [0] and "se" not in student["cnll"]
    assert summed["notes"] == [
        "be_none exists only in the runs with seeds 0.",
        "No analysis.json in run1.",
    ]
    # Only one plain student is in both runs.
    assert summed["best_plain"]["model"] == "single_none"
    row = find(summed["comparisons"], model="be_none")
    assert row["seeds"] == [0] and "p" not in row["cnll"]
    assert summed["ood"][0]["auroc"] == {"mean": 0.75, "by_seed": {"0": 0.75}}
    text = tables.format_markdown(summed)
    assert "### noise\\|x" in text and "over the seeds (1 to 2)" in text


def test_shared_teachers_and_bounds_are_told(copies):
    def change(rows):
        for row in rows:
            row["seed"] = 0
        rows[-1]["temperature_at_bound"] = True

    rewrite(copies[1] / "results.json", change)
    rewrite(copies[1] / "config.json", lambda c: c.update(teachers_workdir="run0"))
    notes = summary.summarize_runs(runs.read_runs(copies))["notes"]
    assert "Some of these runs share their teachers" in notes[0]
    assert notes[1].endswith("unreliable, for single_ods.")


def test_a_note_of_several_analyses_is_told_once(copies):
    for copy, notes in zip(copies, (["One."], ["One.", "Two."]), strict=True):
        rewrite(copy / "analysis.json", lambda a, notes=notes: a.update(notes=notes))
    assert summary.summarize_runs(runs.read_runs(copies))["notes"] == ["One.", "Two."]


def set_in(section, **values):
    return lambda config: config[section].update(values)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config", set_in("data", train_size=4), "\\(data.train_size is 80 and 4\\)"),
        (
            "config",
            lambda c: c["students"]["be_none"].update(alpha=0.5),
            "students.be_none.alpha is None and 0.5",
        ),
        ("config", lambda c: c.update(seed=0), "run0 and .*run1 both have seed=0"),
        ("config", lambda c: [], "config.json is damaged; accepted: a JSON object"),
        (
            "results",
            lambda rows: {"model": 1},
            "results.json does not contain a list of rows",
        ),
        ("results", without(0, "model"), "has a row without a model"),
        (
            "analysis",
            lambda a: a.update(students=3),
            "analysis.json does not contain a list of rows",
        ),
        ("analysis", lambda a: a.update(notes="x"), "has invalid notes"),
        (
            "analysis",
            lambda a: [1],
            "analysis.json is damaged; accepted: a JSON object",
        ),
    ],
)
def test_runs_that_do_not_fit_are_refused(copies, file, change, message):
    rewrite(copies[1] / f"{file}.json", change)
    with pytest.raises(InputError, match=message):
        runs.read_runs(copies)


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


def test_what_may_differ(copies):
    def change(config):
        config |= {"teachers_workdir": "elsewhere", "checkpoint_minutes": 1.0}
        config["data"]["data_dir"] = "there"
        return config

    rewrite(copies[1] / "config.json", change)
    assert [run.seed for run in runs.read_runs(reversed(copies))] == [0, 1]


def test_missing_files_and_names_are_refused(copies):
    with pytest.raises(InputError, match="workdirs is empty"):
        runs.read_runs([])
    read = runs.read_runs(copies)
    with pytest.raises(
        InputError, match=r"baseline=kd is no student.*single_none, be_n"
    ):
        summary.summarize_runs(read, ["kd"])
    other = make_predictions(1, 2.2)
    other = other._replace(test_labels=other.test_labels[::-1])
    save_predictions(copies[1] / "predictions/single_ods.npz", other)
    with pytest.raises(InputError, match=r"run1.*different test labels"):
        summary.summarize_runs(read)
    (copies[0] / "predictions/be_none.npz").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"be_none\.npz does not hold predictions"):
        summary.summarize_runs(read)
    (copies[0] / "students/be_none/metrics.jsonl").write_text("{")
    with pytest.raises(InputError, match=r"metrics\.jsonl is not JSON Lines"):
        summary.summarize_runs(read)
    (copies[0] / "results.json").unlink()
    with pytest.raises(InputError, match=r"there is no .*results\.json.*finished by"):
        runs.read_runs(copies)


# Output files.


def cells(text, heading):
    """The cells of the first table under a heading."""
    after = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(after) if line.startswith("|"))
    table = itertools.takewhile(lambda line: line.startswith("|"), after[start:])
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]


def test_tables_say_what_the_summary_holds(summed):
    extra = {"ood": [], "corruptions": [], "measures": []}
    for model in ("DE-2", "single_none", "single_ods"):
        augrc = 0.03 + (model == "DE-2") / 100 + (model == "single_none") / 50
        value = {"mean": augrc, "se": 0.001, "by_seed": {}}
        extra["measures"].append({"model": model, "seeds": [0, 1], "augrc": value})
    for model, auroc in (("DE-2", 0.9), ("single_ods", 0.7)):
        value = {"mean": auroc, "se": 0.0123, "by_seed": {}}
        row = {"model": model, "set": "noise", "seeds": [0, 1]}
        extra["ood"].append(row | {"score": "max_probability", "auroc": value})
        if model == "DE-2":
            extra["ood"].append(row | {"score": "pairwise_kl", "auroc": value})
        for name, severity in (("none", 0), ("fog", 1), ("mean", 1), ("mean", 2)):
            row = {"model": model, "corruption": name, "severity": severity}
            value = {"mean": 0.5 - severity / 10 - (name == "fog"), "se": 0.01}
            extra["corruptions"].append(row | {"accuracy": value, "cnll": value})
    text = tables.format_markdown(summed | extra, ["cnll.svg", "argument.svg"])
    head, _, first, *rest = cells(text, "## Results")
    assert len({len(row) for row in (head, first, *rest)}) == 1
    column = head.index("cNLL")
    assert [first[0], first[column]] == ["DE-1", "2.0000 ± 0.5774"]
    bold = [row[0] for row in rest if row[column].startswith("**")]
    students = [m for m in summed["models"] if m["kind"] == "student"]
    assert bold == [min(students, key=lambda m: m["cnll"]["mean"])["model"]]
    head, _, *rows = cells(text, "### Against single_none")
    assert head == [
        "model",
        "Δ cNLL",
        "p",
        "over images",
        "Δ acc %",
        "p",
        "over images",
    ]
    row = find(summed["comparisons"], baseline="single_none", model="single_ods")
    assert rows[1][1] == f"{row['cnll']['mean']:+.4f} ± {row['cnll']['se']:.4f}"
    assert rows[1][3] == "[{:+.4f}, {:+.4f}]".format(*row["cnll"]["interval"])
    assert "be_none is the best plain student" in text
    rows = cells(text, "## Diversity of the teachers")[2:]
    assert rows[0][:2] == ["training inputs", "0.2000 ± 0.0577"]
    assert rows[2][0] == "ods, 5.1/255 (single_ods)"
    assert cells(text, "### KL(teachers ‖ student)")[2] == [
        "single_ods", "1.1000 ± 0.5774", "1.2000 ± 0.5774", "1.3000 ± 0.5774",
    ]  # fmt: skip
    assert cells(text, "### noise")[2:] == [
        ["DE-2", "90.00 ± 1.23", "90.00 ± 1.23"],
        ["single_ods", "70.00 ± 1.23", "–"],
    ]
    head, _, row, _ = cells(text, "### Accuracy in %")
    assert head == ["model", "0", "1", "2"]
    assert row == ["DE-2", "50.00 ± 1.00", "40.00 ± 1.00", "30.00 ± 1.00"]
    assert cells(text, "## Further measures") == [
        ["model", "AUGRC %"],
        ["-----------", "--------------:"],
        ["DE-2", "4.00 ± 0.10"],
        ["single_none", "5.00 ± 0.10"],
        ["single_ods", "**3.00 ± 0.10**"],
    ]
    assert text.index("(cnll.svg)") < text.index("(argument.svg)")


def larger_ensembles(path, seed, cnlls):
    """Writes a run whose rows are ensembles of these calibrated NLLs."""
    make_run(path, seed)
    rows = [
        {"model": f"DE-{m}", "kind": "ensemble", "num_members": m, "seed": seed}
        | {"cnll": cnll, "best_cnll": cnll - 0.1, "accuracy": 0.5}
        for m, cnll in enumerate(cnlls, 1)
    ]
    rows.append({"model": "mine", "kind": "student", "cnll": 1.0, "accuracy": 0.6})
    (path / "results.json").write_text(json.dumps(rows))
    save_predictions(path / "predictions/teachers.npz", make_predictions(seed, 1.0))


def test_models_beside_another_ensemble(copies, tmp_path):
    def change(cnll):
        return lambda rows: [
            row | ({"cnll": cnll} if row["model"] == "single_ods" else {})
            for row in rows
        ]

    for path, cnll in zip(copies, (1.3, 0.2), strict=True):
        rewrite(path / "results.json", change(cnll))
    # The fifth of one seed alone is left out.
    for seed, cnlls in enumerate(([2.0, 1.0, 0.6, 0.5], [1.0, 0.6, 0.5, 0.4, 0.3])):
        larger_ensembles(tmp_path / f"large{seed}", seed, cnlls)
    text = f"large={tmp_path / 'large0'},{tmp_path / 'large1'}"
    found = summary.summarize_runs(runs.read_runs(copies), references=[text])
    of = found["references"]["large"]
    assert (of["size"], of["largest"]) == (2, 4)
    assert [row["model"] for row in of["ensembles"]] == ["DE-1", "DE-2", "DE-3", "DE-4"]
    row = find(of["models"], model="single_ods")
    # 1.3 is 0.7 of the way from 2 to 1, 0.2 below 0.4; pooled best from 1.9 to 0.9.
    assert row["dee"]["by_seed"] == pytest.approx({"0": 1.7, "1": 4.0})
    assert row["dee_best"]["by_seed"] == pytest.approx({"0": 1.6, "1": 4.0})
    # Mean cNLLs: 0.75, from 1.5 to 0.8; from 1.4 to 0.7.
    assert row["gap_closed"] == pytest.approx(0.75 / 0.7)
    assert row["gap_closed_best"] == pytest.approx(0.65 / 0.7)
    rows = cells(tables.format_markdown(found), "## Beside large")
    assert rows[2][:3] == ["large DE-1", "50.00 ± 0.00", "1.5000 ± 0.5000"]
    row = next(row for row in rows if row[0] == "single_ods")
    assert row[4:] == ["≥ 2.85 ± 1.15", "≥ 2.80 ± 1.20", "107.1", "92.9"]
    # The reference's own student, of mean cNLL 1.0 in both seeds.
    row = find(of["students"], model="mine")
    assert row["dee"]["by_seed"] == pytest.approx({"0": 2.0, "1": 1.0})
    assert row["gap_closed"] == pytest.approx((1.5 - 1.0) / 0.7)
    assert rows[-1][:3] == ["large mine", "60.00 ± 0.00", "1.0000 ± 0.0000"]

    # A seed whose cNLL is missing, as it was not finite, is left out.
    rewrite(copies[1] / "results.json", change(None))
    found = summary.summarize_runs(runs.read_runs(copies), references=[text])
    row = find(found["references"]["large"]["models"], model="single_ods")
    assert row["dee"]["by_seed"] == pytest.approx({"0": 1.7})


def test_deep_ensemble_equivalents_among_sixteen(copies, tmp_path):
    """From 2 to 0.5, DE-m of 16 members falls by 0.1 for each further member."""
    for seed in range(2):
        cnlls = [2 - 0.1 * m for m in range(16)]
        larger_ensembles(tmp_path / f"large{seed}", seed, cnlls)
    found = {}
    for cnll in (0.72, 0.5, 0.3):

        def change(rows, cnll=cnll):
            own = {"cnll": cnll}
            return [r | (own if r["model"] == "single_ods" else {}) for r in rows]

        for path in copies:
            rewrite(path / "results.json", change)
        text = f"large={tmp_path / 'large0'},{tmp_path / 'large1'}"
        result = summary.summarize_runs(runs.read_runs(copies), references=[text])
        assert result["references"]["large"]["largest"] == 16
        rows = cells(tables.format_markdown(result), "## Beside large")
        assert rows[17][0] == "large DE-16"
        found[cnll] = next(row[4] for row in rows if row[0] == "single_ods")
    # 12.8 steps below 2. At and below the cNLL of all 16, the size is a bound.
    assert found[0.72] == "13.80 ± 0.00"
    assert found[0.5].startswith("≥ 16.00") and found[0.3].startswith("≥ 16.00")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{0}", "accepted: NAME=WORKDIR"),
        ("x={0}", "lacks seed 1"),
        ("x={0},{1}", "have different test labels"),
    ],
)
def test_references_that_do_not_fit_are_refused(text, message, copies, tmp_path):
    other = [tmp_path / "other0", tmp_path / "other1"]
    for seed, path in enumerate(other):
        larger_ensembles(path, seed, [1.0])
        of = make_predictions(seed, 1.0)
        labels = (of.test_labels + 1) % 4
        save_predictions(
            path / "predictions/teachers.npz", of._replace(test_labels=labels)
        )
    with pytest.raises(InputError, match=message):
        summary.summarize_runs(runs.read_runs(copies), references=[text.format(*other)])


def test_the_terminals_table_fits(summed):
    lines = tables.format_terminal(summed, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "2.0000 ± 0.5774" in lines[2]


def many_models(count):
    def row(name, mean, kind, perturbation):
        cnll = {"mean": mean, "se": 0.01, "by_seed": {}}
        fields = {"model": name, "kind": kind, "cnll": cnll}
        return fields | {"perturbation": perturbation}

    rows = [row(f"DE-{m}", 1 - m / 10, "ensemble", None) for m in range(1, 5)]
    return rows + [
        row(f"single_of_kind_{i}", 0.9 - i / 60, "student", ("none", "ods")[i % 2])
        for i in range(count)
    ]


def test_figures_are_small_files_of_their_own(summed):
    for svg in (
        standalone(seed_figures.cnll(many_models(10))),
        standalone(seed_figures.argument(summed["diversity"])),
    ):
        assert len(svg.encode()) < 60_000
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in svg


def test_the_figures_say_what_they_show(summed):
    label = re.search('aria-label="([^"]*)"', seed_figures.cnll(summed["models"]))[1]
    names = [part.split()[0] for part in label.partition(": ")[2].split(", ")]
    students = [m for m in summed["models"] if m["kind"] == "student"]
    students.sort(key=lambda m: m["cnll"]["mean"])
    assert names == ["DE-1", "DE-2", *(m["model"] for m in students)]
    assert "DE-1 2.0000 ± 0.5774" in label
    svg = seed_figures.argument(summed["diversity"])
    label = re.search('aria-label="([^"]*)"', svg)[1]
    assert "pairwise KL: training inputs 0.200 ± 0.0577" in label
    assert "ods, 5.1/255" in label and "10.2/255" not in label
    assert "mean member error, %: training inputs 1.0 ± 0.0" in label


def test_disagreement_by_distance_to_the_data():
    def row(inputs, distance, kl, error):
        values = {"pairwise_kl": kl, "error": error, "distance": distance}
        return {"inputs": inputs} | {k: {"mean": v} for k, v in values.items()}

    rows = [
        row("train", 0.0, 0.1, 0.0),
        row("test", 1.25, 0.8, 0.4),
        row("ods", 0.25, 0.4, 0.1),
        row("ods@0.1", 0.5, 0.6, 0.5),
        row("ods@0.01", 0.0625, 0.2, 0.0),
        row("noise", 0.3, 0.5, 0.4),
    ]
    svg = by_distance(rows)
    assert re.search('aria-label="([^"]*)"', svg)[1] == (
        "Pairwise KL by distance: training inputs 0.1; test inputs 0.8; "
        "ods 0.2 at 0.0625, 0.4 at 0.25, 0.6 at 0.5, lost; noise 0.5 at 0.3"
    )
    assert by_distance(rows[:2]) is by_distance(rows[2:]) is None
    del rows[2]["distance"]
    assert "0.4 at" not in by_distance(rows)


def test_nothing_to_draw_is_no_figure(tmp_path):
    assert seed_figures.cnll([]) is None and seed_figures.argument([]) is None
    path = make_run(tmp_path / "run", 0)
    (path / "analysis.json").unlink()
    summed = summary.summarize_runs(runs.read_runs([path]))
    files = tables.write_summary(summed, tmp_path / "out")
    assert files == ["cnll.svg", "pareto.svg", "summary.json", "summary.md"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*files}
    text = (tmp_path / "out/summary.md").read_text()
    assert "No run has an analysis.json" in text and "argument.svg" not in text
