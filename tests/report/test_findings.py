"""Tests of the headline and the verdicts, on runs scored from their predictions."""

import json
import re

import numpy as np
import pytest
import scored_runs
import seed_runs
from report_pages import read_page

from edp import report
from edp.errors import InputError
from edp.evaluation import predictions, scoring
from edp.report import evidence, findings
from edp.report.evidence import Difference, Scored
from edp.report.seeds import runs, summary, tables

NONE, ODS = ("none", 2.0, 2.0), ("ods", 3.0, 3.0)


def write(workdir, students, **changes):
    rows = scored_runs.write(workdir, students, **changes)
    page = read_page(report.write_report(workdir))
    return {row["model"]: row for row in rows}, report.read_inputs(workdir), page


def test_headline_compares_the_best_student_by_validation(tmp_path):
    # The second student is best on the test images only.
    students = {"kd": NONE, "lucky": ("ods", 2.6, 5.0), "ods": ODS}
    rows, inputs, page = write(tmp_path, students)
    ods, last, first = (rows[name]["cnll"] for name in ("ods", "DE-3", "DE-1"))
    headline = inputs.findings.headline
    assert headline == (
        f"Best student ods: cNLL {ods:.3f} at cost 1. Ensemble of 3: {last:.3f} at "
        f"cost 3. One network: {first:.3f} at cost 1. One seed."
    )
    assert rows["lucky"]["cnll"] < ods < last < first
    assert headline in page.text
    assert headline in (tmp_path / "results.md").read_text()
    # All three differences are clear.
    (verdict,) = inputs.findings.verdicts
    relations = re.findall(r"(better than|worse than|not clearly) ([^(]*) \(", verdict)
    assert relations == [
        ("better than", "the ensemble"),
        ("better than", "one network"),
        ("better than", "the best plain student kd"),
    ]
    assert verdict in page.text
    values = re.findall(r"\((?:cNLL )?(\S+), ", verdict)
    expected = [ods - last, ods - first, ods - rows["kd"]["cnll"]]
    assert [v.replace("−", "-") for v in values] == [f"{v:+.4f}" for v in expected]
    best_pool = rows["DE-3"]["best_cnll"]
    assert any(f"of {best_pool:.3f}." in text for text in inputs.findings.cautions) == (
        round(best_pool, 3) < round(last, 3)
    )
    tiles = {tile.title: tile for tile in inputs.findings.tiles}
    assert tiles["Accuracy"].value == f"{100 * rows['ods']['accuracy']:.1f} %"
    assert tiles["Cost, in forward passes"].others == [
        ("ensemble of 3", "3"),
        ("one network", "1"),
    ]


def test_a_single_student_is_not_the_best_of_several(tmp_path):
    rows, inputs, page = write(tmp_path, {"kd": NONE})
    assert inputs.findings.headline.startswith(
        f"Student kd: cNLL {rows['kd']['cnll']:.3f} at cost 1. Ensemble of 3: "
    )
    assert inputs.findings.comparisons == [] and "With and without" not in page.text


def test_predictions_alone(tmp_path):
    # As of networks from elsewhere: no kinds, perturbations or seeds are known.
    unknown = {"seed", "perturbation", "num_params", "train_seconds"}
    scored_runs.write(tmp_path, {"one": NONE, "other": ODS})
    rows = json.loads((tmp_path / "results.json").read_text())
    rows = [{k: v for k, v in row.items() if k not in unknown} for row in rows]
    rows = [row | ({"student": ""} if "student" in row else {}) for row in rows]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    page = read_page(report.write_report(tmp_path))
    headline = report.read_inputs(tmp_path).findings.headline
    assert headline.startswith("Best student other: cNLL ") and "seed" not in headline
    assert headline in page.text and "other is better than the ensemble" in page.text
    assert page.rows[0][:2] == ["model", "acc\N{NO-BREAK SPACE}%"]
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    assert sections == ["results", "cost", "reliability", "risk", "run"]
    assert "ashed: distilled" not in page.text and "Hollow" not in page.text


def test_an_ensemble_worse_than_one_network_has_no_gap(tmp_path):
    def members_of(labels):
        # One member is always right but unsure, the other often wrong and certain: it
        # decides for both, and a temperature helps only the first.
        unsure = 0.3 + 0.1 * np.eye(3, dtype=np.float32)[labels]
        wrong = (labels + np.arange(len(labels)) % 2) % 3
        certain = np.float32(0.99) * np.eye(3, dtype=np.float32)[wrong]
        return np.stack([unsure, certain + np.float32(0.01 / 3)])

    rows, inputs, page = write(tmp_path, {"kd": NONE}, members_of=members_of)
    assert rows["DE-2"]["cnll"] > rows["DE-1"]["cnll"]
    assert "gap_closed" not in rows["kd"]
    assert inputs.findings.verdicts[-1].startswith(
        "Ensemble of 2 is worse than one network (cNLL +"
    )
    assert inputs.findings.verdicts[-1].endswith(": there is no gap to close.")
    column = page.rows[0].index("gap closed (published)\N{NO-BREAK SPACE}%")
    assert [row[column] for row in page.rows[1:4]] == ["no gap"] * 3
    # At its best, each member at its own temperature, the ensemble is better than one
    # network, so there is a gap on this basis.
    assert rows["DE-2"]["best_cnll"] < rows["DE-1"]["best_cnll"] < rows["DE-2"]["cnll"]
    column = page.rows[0].index("gap closed (best pool)\N{NO-BREAK SPACE}%")
    share = 100 * rows["DE-2"]["gap_closed_best"]
    assert page.rows[2][column] == f"{share:.1f}" and share < 0
    markdown = (tmp_path / "results.md").read_text()
    assert "no gap" in markdown and "no gap" in report.format_table(inputs.rows)


def test_a_gap_within_its_interval_is_no_gap(tmp_path):
    def members_of(labels):
        # The second member is bad and certain, so the ensemble is hardly better.
        good = scored_runs.members(labels, 1.5, 1, 0)
        bad = scored_runs.members(labels, 0.3, 1, 3) ** 3
        return np.concatenate([good, bad / bad.sum(-1, keepdims=True)])

    rows, inputs, _ = write(tmp_path, {"kd": NONE}, members_of=members_of)
    # The row itself has a share of a gap that may be chance.
    assert rows["DE-2"]["cnll"] < rows["DE-1"]["cnll"] and rows["kd"]["gap_closed"] > 5
    assert {row["gap_closed"] for row in inputs.rows} == {"no gap"}
    assert "not clearly different from one network" in inputs.findings.verdicts[1]


def test_equal_students_are_not_clearly_different(tmp_path):
    _, inputs, _ = write(tmp_path, {"kd": NONE, "ods": ("ods", 2.01, 2.0)})
    (comparison,) = inputs.findings.comparisons
    assert comparison.difference.sign == 0
    assert (
        "not clearly different from the best plain student kd"
        in (inputs.findings.verdicts[0])
    )


def test_half_of_a_run(tmp_path):
    students = {name: {"student": "single"} for name in ("kd", "ods", "mixup")}
    tmp_path.joinpath("config.json").write_text(json.dumps({"students": students}))
    _, inputs, page = write(tmp_path, {"kd": NONE})
    # More are to come, so this is the best one so far.
    assert inputs.findings.headline.startswith("Best student kd: ")
    assert "Not finished: ods, mixup." in page.text
    _, inputs, page = write(tmp_path, {})
    assert inputs.findings.headline.startswith("Ensemble of 3: cNLL ")
    assert "Not finished: kd, ods, mixup." in page.text
    assert "Ensemble of 3 is better than one network (cNLL −" in page.text
    assert "teachers.npz" not in page.text


def test_thirty_six_students(tmp_path):
    students = {
        f"s{i:02}": ("none" if i == 0 else "ods", 1 + i / 20, 1 + i / 20)
        for i in range(36)
    }
    _, inputs, page = write(tmp_path, students)
    assert inputs.findings.headline.startswith("Best student s35: cNLL ")
    # Eight students have figures: the best seven, and the best plain one.
    names = {p.stem for p in tmp_path.joinpath("figures").glob("reliability_s*")}
    assert names == {f"reliability_s{i:02}" for i in (0, *range(29, 36))}
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    assert labels[0].count("s") >= 36 and "the 28 other students" in page.text
    assert len(page.rows) > 36 and page.text.count("s17") >= 2  # in both tables
    # One colour each, the same in every figure.
    colours = {
        name: re.search(rf"fill: ([^;\"]+)\"[^>]*>[^<]*{name}<", text)[1]
        for name in ("s00", "s35", "s29")
        for text in [(tmp_path / "figures" / "cnll.svg").read_text()]
    }
    for figure in ("risk_coverage.svg", "pareto.svg"):
        text = (tmp_path / "figures" / figure).read_text()
        for name, colour in colours.items():
            found = re.search(rf"fill: ([^;\"]+)\"[^>]*>[^<]*{name}<", text)
            assert found[1] == colour
    assert len({*colours.values()}) == 3


def test_predictions_of_another_training_give_no_interval(tmp_path):
    scored_runs.write(tmp_path / "a", {"kd": NONE, "ods": ODS})
    scored_runs.write(tmp_path / "b", {"kd": ("none", 2.2, 2.2)})
    (tmp_path / "b/predictions/kd.npz").rename(tmp_path / "a/predictions/kd.npz")
    inputs = report.read_inputs(tmp_path / "a")
    assert inputs.evidence.missing == ["kd.npz does not give the cNLL of kd's row"]
    assert inputs.evidence.scored.keys() == {"DE-1", "DE-3", "ods"}
    (comparison,) = inputs.findings.comparisons
    assert comparison.difference is None
    # One validation score is unknown, so none is used.
    assert any("chosen on the test" in text for text in inputs.findings.cautions)


@pytest.mark.parametrize("alike", [False, True])
def test_a_summary_over_seeds_has_no_gap_within_its_interval(tmp_path, alike):
    paths = [tmp_path / f"run{seed}" for seed in range(2)]
    for seed, path in enumerate(paths):
        seed_runs.make_run(path, seed)
        first, other = (seed_runs.make_predictions(seed, s) for s in (1.0, 1.1))
        probs = {
            name: np.concatenate(
                [getattr(of, name) for of in (first, first if alike else other)]
            )
            for name in ("validation_probs", "test_probs")
        }
        of = first._replace(**probs)
        predictions.save_predictions(path / "predictions" / "teachers.npz", of)
        teachers = scoring.ensemble_rows(of, seed=seed, costs=[{}, {}])
        seed_runs.rewrite(
            path / "results.json", lambda rows, t=teachers: [*t, *rows[2:]]
        )
    found = summary.summarize_runs(runs.read_runs(paths))
    low, high = found["gap"]["interval"]
    text, terminal = tables.format_markdown(found), tables.format_terminal(found)
    named = "gap_closed_of_means" in found["models"][-1]
    assert named == ("gap_closed" in found["models"][-1]) == (not alike)
    assert ("no gap |" in text) == ("no gap" in terminal) == alike
    assert (low, high) == (0, 0) if alike else low < high < 0
    # Rows of other teachers than those that the interval is about.
    seed_runs.rewrite(path / "results.json", lambda rows: rows[1].update(cnll=0.7))
    with pytest.raises(InputError, match=r"teachers\.npz does not give .* of DE-2 in"):
        summary.summarize_runs(runs.read_runs(paths))


def test_differences_by_hand():
    def scored(nll):
        return Scored(0.0, np.asarray(nll, float), np.ones(4))

    of = {
        "a": scored([0, 0, 0, 0]),
        "b": scored([1, 1, 1, 1]),
        "c": scored([2, -2] * 2),
    }
    found = evidence.differences(of, [("a", "b"), ("c", "a"), ("a", "d")])
    # A constant difference has no spread; the other one is 0 on average.
    assert found[("a", "b")] == (-1, -1, -1)
    assert found[("c", "a")] == (0, -2, 2) and found.keys() == {("a", "b"), ("c", "a")}
    assert evidence.intervals_about(of, "a")["c"] == (-2, 2)
    assert [Difference(0, *ends).sign for ends in ((-2, -1), (1, 2), (-1, 1))] == [
        *(-1, 1, 0)
    ]
    assert findings.difference_text(Difference(-0.5, -1, 0.25)) == (
        "cNLL −0.5000, 95 % interval −1.0000 to +0.2500"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"predictors": {"teachers": "t", "kd": "other"}}, "(kd)"),
        ({"data": {"test": "other"}}, "(other data)"),
        ({"predictors": {"teachers": "t", "new": "n"}}, ""),  # not predicted yet
    ],
)
def test_other_evaluations_must_be_of_the_same_networks(tmp_path, change, message):
    scored_runs.write(tmp_path, {"kd": NONE})
    index = {"data sha256": {"test": "d"}, "teachers": "t", "kd": "k"}
    (tmp_path / "predictions" / "made_from.json").write_text(json.dumps(index))
    made_from = {"data": {"test": "d"}, "predictors": {"teachers": "t", "kd": "k"}}
    row = {"model": "kd", "set": "noise", "score": "max_probability", "auroc": 0.9}
    value = {"rows": [row], "protocol": "", "made_from": made_from | change}
    (tmp_path / "ood.json").write_text(json.dumps(value))
    page = read_page(report.write_report(tmp_path))
    left_out = re.search(r"OOD detection: (.*)", page.text)
    assert (left_out is None) == (message == "")
    assert ("Out of distribution" in page.text) == (message == "")
    if message:
        assert left_out[1].startswith(
            "ood.json is of another training or of other data"
        )
        assert message in left_out[1]


def test_training_curves_are_those_of_the_logs(tmp_path):
    scored_runs.write(tmp_path, {"kd": NONE, "density": ODS})
    losses = {"teachers": (3.0, 1.0), "kd": (2.0, 0.5), "density": (1.0, -5.0)}
    for name, values in losses.items():
        stage = tmp_path / ("" if name == "teachers" else "students") / name
        stage.mkdir(parents=True)
        lines = [
            json.dumps({"epoch": i + 1, "loss": value, "accuracy": 0.5 * i + 0.25})
            for i, value in enumerate(values)
        ]
        (stage / "metrics.jsonl").write_text("\n".join([*lines, '{"epoch": 3, "lo']))
    page = read_page(report.write_report(tmp_path))
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    loss, accuracy = (label for label in labels if "by epoch" in label)
    # The loss of a density is left out; a line that was cut off is skipped.
    assert (
        loss == "training loss by epoch: teachers 3 at 1, 1 at 2; kd 2 at 1, 0.5 at 2"
    )
    assert accuracy.startswith(
        "training accuracy, % by epoch: teachers 25 at 1, 75 at 2"
    )
    assert "density 25 at 1" in accuracy and "right on 75.0 %" in page.text
