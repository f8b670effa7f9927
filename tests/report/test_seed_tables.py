"""Tests of the tables of a summary over seeds."""

from result_tables import cells
from seed_runs import find

from edp.report.seeds import tables


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


def test_the_terminals_table_fits(summed):
    lines = tables.format_terminal(summed, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "2.0000 ± 0.5774" in lines[2]
