"""Tests of the results table and the sentences below it."""

import json

from report_pages import make_run, markdown_cells, read_page, student

from edp import report


def test_rows_keep_their_order():
    rows = [student("z", 0.1), student("a", 0.3), {"model": "DE-1", "cnll": 0.2}]
    for style in ("plain", "markdown"):
        lines = report.format_table(rows, style).splitlines()[2:]
        assert [line.strip("| ").split()[0] for line in lines] == ["z", "a", "DE-1"]


def test_bold_is_the_best_student_of_each_column():
    rows = [
        {"model": "DE-1", "kind": "ensemble", "accuracy": 0.99, "nll": 0.01},
        student("a", 0.50001, accuracy=0.8, nll=0.30, ece=0.02, inference_cost=1),
        student("b", 0.50002, accuracy=0.7, nll=0.20, ece=0.03, inference_cost=4),
        student("c", 0.6, accuracy=float("nan"), nll=0.25, ece=0.02),
    ]
    cells = markdown_cells(report.format_table(rows, "markdown"))
    bold = [
        (r, c) for r, line in enumerate(cells) for c, t in enumerate(line) if "**" in t
    ]
    titles = cells[0]
    assert [(cells[r][0], titles[c]) for r, c in bold] == [
        ("a", "acc %"),
        ("a", "cNLL"),  # The same as b's in the digits shown.
        ("a", "ECE %"),
        ("b", "NLL"),
        ("b", "cNLL"),
        ("c", "ECE %"),
    ]
    assert cells[5][titles.index("acc %")] == "–"
    # A single student, or equal students: none is bold.
    assert "**" not in report.format_table(rows[:2], "markdown")
    assert "**" not in report.format_table([student("a", 0.5), student("b", 0.5)])


def test_student_column_only_for_several_kinds():
    rows = [student("a", 0.5), student("b", 0.4)]
    assert "student" not in report.format_table(rows).splitlines()[0]
    rows += [student("c", 0.4, kind="batch_ensemble")]
    assert "student" in report.format_table(rows).splitlines()[0]


def test_comparison_in_both_directions():
    plain = [student("kd", 0.30004), student("kd2", 0.4)]
    better = student("ods", 0.25, "ods")
    worse = student("noise", 0.35, "gaussian")
    message, doubt = report.compare_with_plain([worse, *plain, better])
    assert (
        "the best of 2 perturbed ones (ods, ods) has a calibrated NLL of 0.25"
        in message
    )
    assert "the best of 2 plain ones (kd) 0.3000: 0.0500 lower" in message
    assert "the perturbation is ahead" in message
    assert "single seed gives no uncertainty" in doubt and "chosen on the test" in doubt

    message, doubt = report.compare_with_plain([plain[0], worse])
    assert "the perturbed one (noise, gaussian)" in message
    assert "0.0500 higher, so no perturbation is ahead of plain" in message
    assert "single seed gives no uncertainty" in doubt and "chosen" not in doubt

    message, _ = report.compare_with_plain(
        [student("a", 0.3), student("b", 0.30001, "ods")]
    )
    assert "no difference to four decimals" in message and "ahead" not in message


def test_comparison_is_within_a_kind_and_names_missing_students():
    rows = [
        {"model": "DE-1", "kind": "ensemble", "cnll": 0.1},
        student("a", 0.5, None),
        student("b", 0.4, "ods"),
        student("c", 0.1, "ods", kind="batch_ensemble"),
    ]
    single, batch, doubt = report.compare_with_plain(rows)
    assert "kind single" in single and "(b, ods)" in single and "(a) 0.5" in single
    assert "no plain student of kind batch_ensemble" in batch
    assert "single seed" in doubt
    assert report.compare_with_plain(rows[:1]) == []
    assert "no perturbed student" in report.compare_with_plain(rows[:2])[0]
    seeds = [rows[1], dict(rows[2], seed=1)]
    assert "not means over the seeds" in report.compare_with_plain(seeds)[1]


def test_old_rows_without_aurc(tmp_path):
    rows = make_run(tmp_path)
    old = [{k: v for k, v in row.items() if k != "aurc"} for row in rows]
    assert "AURC" in report.format_table(rows, width=120)
    assert "AURC" not in report.format_table(old, width=120)
    mixed = report.format_table([*old[:5], *rows[5:]], "markdown")
    cells = markdown_cells(mixed)
    column = cells[0].index("AURC %")
    assert [line[column] for line in cells[2:8]] == ["–"] * 5 + ["4.97"]
    (tmp_path / "results.json").write_text(json.dumps(old))
    page = read_page(report.write_report(tmp_path))
    assert [tag for tag, _ in page.tags].count("svg") == 3 + 4 + 7
