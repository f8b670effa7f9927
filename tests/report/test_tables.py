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
        ("b", "NLL"),
        # cNLL and ECE: two students are equal in the digits shown.
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
