"""Tests of summaries beside a larger ensemble of other runs."""

import json

import numpy as np
import pytest
from result_tables import cells
from seed_runs import find, make_predictions, make_run

from edp.errors import InputError
from edp.evaluation import scoring
from edp.evaluation.predictions import save_predictions
from edp.report.seeds import reference_tables, references, runs, summary, tables


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


def beside(workdirs, cnlls, text):
    """Reads runs, gives single_ods these cNLLs, and places it beside a reference."""
    read = [
        run._replace(
            rows=[
                row | ({"cnll": cnll} if row["model"] == "single_ods" else {})
                for row in run.rows
            ]
        )
        for run, cnll in zip(runs.read_runs(workdirs), cnlls, strict=True)
    ]
    ((name, reference),) = references.read_references([text], read).items()
    of = references.compare_with(reference, read)
    lines = "\n".join(reference_tables.sections({name: of}))
    return of, cells(lines, f"## Beside {name}")


def test_models_beside_another_ensemble(copies, tmp_path):
    # The fifth of one seed alone is left out.
    for seed, cnlls in enumerate(([2.0, 1.0, 0.6, 0.5], [1.0, 0.6, 0.5, 0.4, 0.3])):
        larger_ensembles(tmp_path / f"large{seed}", seed, cnlls)
    text = f"large={tmp_path / 'large0'},{tmp_path / 'large1'}"
    of, rows = beside(copies, (1.3, 0.2), text)
    assert (of["size"], of["largest"]) == (2, 4)
    assert [row["model"] for row in of["ensembles"]] == ["DE-1", "DE-2", "DE-3", "DE-4"]
    row = find(of["models"], model="single_ods")
    # 1.3 is 0.7 of the way from 2 to 1, 0.2 below 0.4; pooled best from 1.9 to 0.9.
    assert row["dee"]["by_seed"] == pytest.approx({"0": 1.7, "1": 4.0})
    assert row["dee_best"]["by_seed"] == pytest.approx({"0": 1.6, "1": 4.0})
    # Mean cNLLs: 0.75, from 1.5 to 0.8; from 1.4 to 0.7.
    assert row["gap_closed"] == pytest.approx(0.75 / 0.7)
    assert row["gap_closed_best"] == pytest.approx(0.65 / 0.7)
    assert rows[2][:3] == ["large DE-1", "50.00 ± 0.00", "1.5000 ± 0.5000"]
    row = next(row for row in rows if row[0] == "single_ods")
    assert row[4:] == ["≥ 2.85 ± 1.15", "≥ 2.80 ± 1.20", "107.1", "92.9"]
    # The reference's own student, of mean cNLL 1.0 in both seeds.
    row = find(of["students"], model="mine")
    assert row["dee"]["by_seed"] == pytest.approx({"0": 2.0, "1": 1.0})
    assert row["gap_closed"] == pytest.approx((1.5 - 1.0) / 0.7)
    assert rows[-1][:3] == ["large mine", "60.00 ± 0.00", "1.0000 ± 0.0000"]
    found = summary.summarize_runs(runs.read_runs(copies), references=[text])
    assert found["references"]["large"]["students"] == of["students"]
    assert cells(tables.format_markdown(found), "## Beside large")[2] == rows[2]

    # A seed whose cNLL is missing, as it was not finite, is left out.
    of, _ = beside(copies, (1.3, None), text)
    row = find(of["models"], model="single_ods")
    assert row["dee"]["by_seed"] == pytest.approx({"0": 1.7})


def test_deep_ensemble_equivalents_among_sixteen(copies, tmp_path):
    """From 2 to 0.5, DE-m of 16 members falls by 0.1 for each further member."""
    for seed in range(2):
        cnlls = [2 - 0.1 * m for m in range(16)]
        larger_ensembles(tmp_path / f"large{seed}", seed, cnlls)
    text = f"large={tmp_path / 'large0'},{tmp_path / 'large1'}"
    found = {}
    for cnll in (0.72, 0.5, 0.3):
        of, rows = beside(copies, (cnll, cnll), text)
        assert of["largest"] == 16 and rows[17][0] == "large DE-16"
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


def of_members(path, seed, *strengths):
    """Writes a run whose teachers have signals of these strengths."""
    make_run(path, seed)
    found = [make_predictions(seed, strength) for strength in strengths]
    probs = {
        name: np.concatenate([getattr(of, name) for of in found])
        for name in ("validation_probs", "test_probs")
    }
    of = found[0]._replace(**probs)
    save_predictions(path / "predictions/teachers.npz", of)
    rows = scoring.ensemble_rows(of, seed=seed, costs=[{}] * len(strengths))
    (path / "results.json").write_text(json.dumps(rows))
    return rows


def test_a_gap_within_its_interval_is_no_gap(copies, tmp_path):
    # The second member has hardly a signal, so the ensemble is hardly better.
    rows = [of_members(tmp_path / f"{s}", s, 1.0, 0.1) for s in range(2)]
    assert sum(first["cnll"] - last["cnll"] for first, last in rows) > 0
    of, shown = beside(copies, (0.5, 0.5), f"x={tmp_path / '0'},{tmp_path / '1'}")
    low, high = of["gap"]["interval"]
    assert low < 0 <= high
    expected = np.mean([last["cnll"] - first["cnll"] for first, last in rows])
    assert of["gap"]["mean"] == pytest.approx(expected)
    assert not any("gap_closed" in model for model in of["models"])
    assert "gap_closed_best" in of["models"][-1]
    column = next(i for i, title in enumerate(shown[0]) if "published" in title)
    assert {row[column] for row in shown[1:]} >= {"no gap"}


def test_the_gap_of_a_part_of_the_reference(copies, tmp_path):
    """Of three members there are three pairs, as in their row."""
    rows = [of_members(tmp_path / f"{s}", s, 0.8, 1.0, 1.2) for s in range(2)]
    of, shown = beside(copies, (0.5, 0.5), f"x={tmp_path / '0'},{tmp_path / '1'}")
    assert (of["size"], of["largest"]) == (2, 3)
    expected = np.mean([pair["cnll"] - one["cnll"] for one, pair, _ in rows])
    assert of["gap"]["mean"] == pytest.approx(expected)
    low, high = of["gap"]["interval"]
    assert low < expected < high < 0
    assert find(of["models"], model="single_ods")["gap_closed"] > 1
    assert not any("no gap" in cell for row in shown for cell in row)


def test_a_reference_on_other_images_is_noted(copies, tmp_path):
    other = tmp_path / "other"
    make_run(other, 0)
    for path, digest in ((copies[0], "one"), (other, "two")):
        index = {"data sha256": {"validation": "same", "test": digest}}
        (path / "predictions/made_from.json").write_text(json.dumps(index))
    read = runs.read_runs(copies[:1])
    (note,) = summary.summarize_runs(read, references=[f"mine={other}"])["notes"]
    assert note.startswith("The test images of run0 and other differ, though the label")
