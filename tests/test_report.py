"""The report: tables, sentences, figures, and the page as a whole."""

import base64
import html.parser
import io
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from edp import metrics, report
from edp.errors import InputError
from edp.report import diversity, figures, gallery, line_ends, risk, sections, table
from edp.report.svg import standalone

NUM_MEMBERS, NUM_CLASSES = 4, 3
HOSTILE = "<script>alert('x')</script>"
RUN = {
    "schema_version": 1,
    "edp": "0.1.0",
    "python": "3.11.7",
    "jax": "0.10.2",
    "flax": "0.12.0",
    "optax": "0.2.6",
    "orbax-checkpoint": "0.11.2",
    "numpy": "2.3.1",
    "platform": "Linux-6.1",
    "backend": "cpu",
    "device": "cpu",
    "num_devices": 1,
    "num_processes": 1,
    "cpu_count": 2,
}
SOFTWARE = (
    "edp 0.1.0, python 3.11.7, jax 0.10.2, flax 0.12.0, optax 0.2.6, "
    "orbax-checkpoint 0.11.2, numpy 2.3.1"
)
VOID = {"meta", "img", "br", "hr", "link", "input"}


def softmax(logits):
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    return (exps / exps.sum(-1, keepdims=True)).astype(np.float32)


def student(name, cnll, perturbation="none", kind="single", **fields):
    row = {"model": name, "kind": "student", "student": kind, "seed": 0}
    return row | {"perturbation": perturbation, "cnll": cnll} | fields


def make_run(workdir, hostile=False):
    """Writes every file of a run with 4 members, 6 students and a 6×7 gallery."""
    rng = np.random.default_rng(0)
    (workdir / "predictions").mkdir(parents=True)
    labels = rng.integers(0, NUM_CLASSES, 200)

    def save(name, num_members):
        logits = 2 * np.eye(NUM_CLASSES)[labels] + rng.normal(
            size=(num_members, 200, NUM_CLASSES)
        )
        arrays = {}
        for split in ("validation", "test"):
            arrays |= {f"{split}_probs": softmax(logits), f"{split}_labels": labels}
        np.savez(workdir / "predictions" / f"{name}.npz", **arrays)

    def scores(i):
        return {
            "seed": 0,
            "accuracy": 0.9 + 0.001234 * i,
            "nll": 0.40 - 0.01 * i,
            "cnll": 0.39 - 0.01 * i,
            "ece": 0.0312 + 0.001 * i,
            "cece": 0.01,
            "aurc": 0.0512 - 0.0023 * i,
            "brier": 0.15 - 0.003 * i,
            "temperature": 1.3,
        }

    rows = []
    for i in range(NUM_MEMBERS):
        fields = {"model": f"DE-{i + 1}", "kind": "ensemble", "num_members": i + 1}
        rows.append(fields | scores(i) | {"inference_cost": i + 1})
    save("teachers", NUM_MEMBERS)
    names = ["kd", "kd_noise", "kd_ods", "kd_conf_ods", "be", "be_conf_ods"]
    kinds = ["none", "gaussian", "ods", "conf_ods", "none", "conf_ods"]
    if hostile:
        names[2:4] = ["$a_b$ <i>|*", "<script>alert(1)"]
    for i, (name, perturbation) in enumerate(zip(names, kinds, strict=True)):
        fields = student(name, 0, perturbation, "single" if i < 4 else "batch_ensemble")
        more = {"dee": 0.5 + 0.5 * i, "gap_closed": 0.1 * i, "inference_cost": 1.0}
        rows.append(fields | scores(0.3 + i / 3) | more)
        save(name, 1)
    (workdir / "results.json").write_text(json.dumps(rows))

    dataset = HOSTILE if hostile else "digits"
    config = {"data": {"source": "tfds", "name": dataset}, "model": {"name": "convnet"}}
    (workdir / "config.json").write_text(json.dumps(config | {"seed": 17}))
    (workdir / "run.json").write_text(json.dumps(RUN))

    clean = {"perturbation": None, "step_size": None}
    values = {"disagreement_rate": 0.25, "mutual_information": 0.1, "error": 0.05}
    values["variance"] = 0.125
    diversity = [
        {"inputs": "train", "pairwise_kl": 0.0125} | clean | values,
        {"inputs": "test", "pairwise_kl": 0.5} | clean | values,
        {"inputs": names[0], "pairwise_kl": 0.0125} | clean | values,
        {"inputs": names[3], "perturbation": "conf_ods", "step_size": 1 / 128}
        | {"pairwise_kl": 0.75}
        | values,
    ]
    (workdir / "analysis.json").write_text(json.dumps({"diversity": diversity}))

    views = ["clean", *names]
    classes = [HOSTILE if hostile else "ant", "bee", "cat"]
    images = rng.uniform(0.2, 0.8, (1, 6, 32, 32, 3)) * np.ones((7, 1, 1, 1, 1))
    images[1:] += 0.04 * rng.choice([-1, 1], images[1:].shape)
    np.savez(
        workdir / "gallery.npz",
        names=np.array(views),
        images=images.astype(np.float32),
        probs=softmax(rng.normal(size=(7, NUM_MEMBERS, 6, NUM_CLASSES))),
        labels=np.array([0, 1, 2, 0, 1, 2]),
        class_names=np.array(classes),
    )
    return rows


class Page(html.parser.HTMLParser):
    """Checks that tags balance; gathers tags, table rows and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.rows, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def read_page(path):
    return Page(path.read_text(encoding="utf-8"))


def markdown_cells(text):
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    rows = make_run(workdir)
    return workdir, rows, report.write_report(workdir)


def test_whole_report(run):
    workdir, _, path = run
    assert path == workdir / "report.html"
    page = read_page(path)
    assert path.stat().st_size < 2e6
    names = [tag for tag, _ in page.tags]
    # The front, two of curves, four panels of diversity, reliability of DE-4 and six
    # students.
    assert names.count("svg") == 3 + 4 + 7
    # Six examples: one clean image each, six perturbed ones with their change.
    assert names.count("img") == 6 * (1 + 2 * 6)
    assert names.count("li") == 6 * 7 * NUM_MEMBERS
    assert not [a for _, a in page.tags if a.get("class") == "absent"]
    for said in ("digits", "convnet", "17", SOFTWARE, "cpu (2 cores), Linux-6.1"):
        assert said in page.text
    assert sorted(p.name for p in workdir.iterdir() if p.name.startswith(".")) == []


def test_facts():
    rows = [
        {"model": "DE-1", "kind": "ensemble", "num_members": 1, "seed": 3},
        {"model": "DE-2", "kind": "ensemble", "num_members": 2, "seed": 3},
        student("be", 0.1, num_members=9, seed=4),
    ]
    config = {
        "seed": 0,
        "data": {"source": "digits", "name": None, "path": None},
        "model": {
            "depth": 28,
            "name": "wide_resnet",
            "widen_factor": 10,
            "width": None,
        },
    }
    assert report.run_facts(rows, config, RUN) == {
        "Dataset": "digits",
        "Model": "wide_resnet, depth 28, widen_factor 10",
        "Members": "2",
        "Seed": "0",
        "Software": SOFTWARE,
        "Hardware": "cpu (2 cores), Linux-6.1",
    }
    assert report.run_facts(rows, {}, {}) == {"Members": "2", "Seed": "3, 4"}
    assert report.run_facts([], {"data": "cifar10", "model": None}, {}) == {}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_devices": 8}, "cpu (8 × cpu, 2 cores), Linux-6.1"),
        (
            {"backend": "gpu", "device": "NVIDIA H100", "cpu_count": 64},
            "gpu (NVIDIA H100, 64 CPU cores), Linux-6.1",
        ),
        (
            {
                "backend": "tpu",
                "device": "TPU v4",
                "num_devices": 8,
                "num_processes": 2,
            },
            "tpu (8 × TPU v4, 2 CPU cores), 2 processes, Linux-6.1",
        ),
        ({"cpu_count": None, "platform": ""}, "cpu"),
    ],
)
def test_hardware(changed, said):
    assert report.run_facts([], {}, RUN | changed)["Hardware"] == said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"source": "tfds", "name": "cifar10", "path": None}, "cifar10"),
        ({"source": "folder", "name": None, "path": "/data/birds/"}, "birds"),
        ({"source": "npz", "name": "cifar10", "path": "sets/mnist.npz"}, "mnist.npz"),
        ({"source": "folder", "path": "."}, "folder"),
        ({"source": "digits", "name": "cifar10", "path": "x"}, "digits"),
    ],
)
def test_the_dataset_shown(data, said):
    assert report.run_facts([], {"data": data}, {}) == {"Dataset": said}


def test_page_needs_nothing_from_elsewhere(run):
    page = read_page(run[2])
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids)) > 0
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name)
            if target is not None:
                assert target.startswith(("data:image/png;base64,", "#"))
                assert not target.startswith("#") or target[1:] in ids
    text = run[2].read_text()
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)
    assert not re.findall(r"url\((?!#)|@import|https?://", text)
    # No stand-in for a colour is left, and all that are used are defined.
    assert not re.findall(r"#0[1-5]0[1-5]0\d", text)
    assert set(re.findall(r"var\((--\w+)\)", text)) <= set(
        re.findall(r"(--\w+):", text)
    )


def test_writing_again_gives_the_same(run):
    workdir, _, path = run
    before = [path.read_bytes(), (workdir / "results.md").read_bytes()]
    report.write_report(workdir)
    assert [path.read_bytes(), (workdir / "results.md").read_bytes()] == before


def test_numbers_in_both_tables_are_the_rows(run):
    workdir, rows, path = run
    markdown = (workdir / "results.md").read_text()
    markdown, _, _ = markdown.partition("## Ranking")
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    shown = markdown_cells("\n".join(lines))
    web = read_page(path).rows[: len(rows) + 1]
    assert shown[0] == [column.title for column in table.COLUMNS]
    assert [title.replace("\N{NO-BREAK SPACE}", " ") for title in web[0]] == shown[0]
    assert len(web) == len(shown) - 1 == len(rows) + 1
    first = ["DE-1", "–", "–", "90.00", "0.4000", "0.3900", "3.12"]
    first += ["5.12", "0.1500"]
    assert web[1] == shown[2] == [*first, "–", "–", "1.00"]
    factors = {"accuracy": 100, "ece": 100, "aurc": 100, "gap_closed": 100}
    factors |= {"nll": 1, "cnll": 1, "brier": 1, "dee": 1}
    keys = [column.key for column in table.COLUMNS]
    for row, in_markdown, in_web in zip(rows, shown[2:], web[1:], strict=True):
        assert in_web[0] == in_markdown[0] == row["model"]
        for key, factor in factors.items():
            for cell in (in_markdown[keys.index(key)], in_web[keys.index(key)]):
                if key in row:
                    digits = len(cell.strip("*").split(".")[1])
                    error = abs(float(cell.strip("*")) - factor * row[key])
                    assert digits >= 1 and error <= 0.5000001 * 10**-digits
                else:
                    assert cell == "–"


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
    # One student, or students that do not differ: nobody is best.
    assert "**" not in report.format_table(rows[:2], "markdown")
    assert "**" not in report.format_table([student("a", 0.5), student("b", 0.5)])


def test_bold_in_html(run):
    lines = re.findall(r"<tr.*?</tr>", run[2].read_text())
    bold = [re.findall(r"<b>(.*?)</b>", line) for line in lines[: len(run[1]) + 1]]
    assert bold[5] == ["3.15"]  # The scores of the students rise, so does the ECE.
    assert bold[-1] == ["90.24", "0.3803", "0.3703", "4.67", "0.1441", "3.00", "50.0"]
    assert not any(bold[:5] + bold[6:-1])


def test_terminal_table_is_aligned_and_fits(run):
    rows = run[1]
    long = [dict(row, model="batch_ensemble_" * 3 + row["model"]) for row in rows]
    for given in (rows, long, rows[:4]):
        lines = report.format_table(given).splitlines()
        assert max(map(len, lines)) <= 100
        assert len({len(line) for line in lines}) == 1  # The last column is full.
        start = [m.start() for m in re.finditer(r"(?<=  )─|^─", lines[1])]
        for line in lines:
            assert all(line[i - 2 : i] == "  " for i in start[1:])
    shown = report.format_table(long).splitlines()[-1].split()[0]
    assert "…" in shown and shown.endswith("_ods")
    with pytest.raises(ValueError, match="'plain', 'markdown'"):
        report.format_table(rows, "latex")


def test_student_column_only_for_several_kinds():
    rows = [student("a", 0.5), student("b", 0.4)]
    assert "student" not in report.format_table(rows).splitlines()[0]
    rows += [student("c", 0.4, kind="batch_ensemble")]
    assert "student" in report.format_table(rows).splitlines()[0]


def test_comparison_in_both_directions():
    plain = [student("kd", 0.30004), student("kd2", 0.4)]
    better = student("ods", 0.25, "ods")
    worse = student("noise", 0.35, "gaussian")
    said, doubt = report.compare_with_plain([worse, *plain, better])
    assert (
        "the best of 2 perturbed ones (ods, ods) has a calibrated NLL of 0.25" in said
    )
    assert "the best of 2 plain ones (kd) 0.3000: 0.0500 lower" in said
    assert "the perturbation is ahead" in said
    assert "single seed gives no uncertainty" in doubt and "chosen on the test" in doubt

    said, doubt = report.compare_with_plain([plain[0], worse])
    assert "the perturbed one (noise, gaussian)" in said
    assert "0.0500 higher, so no perturbation is ahead of plain" in said
    assert "single seed gives no uncertainty" in doubt and "chosen" not in doubt

    said, _ = report.compare_with_plain(
        [student("a", 0.3), student("b", 0.30001, "ods")]
    )
    assert "no difference to four decimals" in said and "ahead" not in said


def test_comparison_is_within_a_kind_and_tells_what_is_lacking():
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


def test_only_results(tmp_path):
    rows = [student("kd", 0.3), student("ods", 0.2, "ods", temperature_at_bound=True)]
    rows[0]["skipped_steps"] = 3
    (tmp_path / "results.json").write_text(json.dumps(rows))
    page = read_page(report.write_report(tmp_path))
    for said in (
        "there is no run.json",
        "there is no config.json",
        "there is no analysis.json",
        "there is no gallery.npz",
        "there is no kd.npz; there is no ods.npz",
        "No row of an ensemble in results.json has a calibrated NLL.",
        "at the bound of its search range",
        "loss or gradients were not finite: 3 of kd.",
        "0.1000 lower",
    ):
        assert said in page.text, said
    assert "svg" not in [tag for tag, _ in page.tags]
    assert "0.1000 lower" in (tmp_path / "results.md").read_text()


def test_teachers_only_and_damaged_files(tmp_path):
    rows = make_run(tmp_path)[:1]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    (tmp_path / "analysis.json").write_text('{"diversity": [')
    (tmp_path / "gallery.npz").write_bytes(b"PK no archive")
    (tmp_path / "run.json").write_text("[]")
    page = read_page(report.write_report(tmp_path))
    # The front, calibrated NLL, reliability, error against coverage.
    assert [tag for tag, _ in page.tags].count("svg") == 4
    for name in ("analysis.json cannot be read", "gallery.npz cannot be read"):
        assert name in page.text
    assert "run.json is not a mapping" in page.text


def test_damaged_predictions_are_left_out_with_a_sentence(tmp_path):
    make_run(tmp_path)
    folder = tmp_path / "predictions"
    (folder / "teachers.npz").write_bytes(b"PK no archive")
    np.savez(folder / "kd.npz", test_probs=np.ones((1, 5, 3)) / 3)
    arrays = dict(np.load(folder / "be.npz"))
    np.savez(folder / "be.npz", **arrays | {"test_labels": arrays["test_labels"][:9]})
    page = read_page(report.write_report(tmp_path))
    for kind in ("Reliability diagrams", "Risk-coverage curves"):
        assert (
            f"{kind} left out: teachers.npz cannot be read (ValueError); "
            "kd.npz cannot be read (KeyError); be.npz: "
        ) in page.text
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    (label,) = (label for label in labels if "coverage" in label)
    names = [said.split()[0] for said in label.split(": ")[1].split(", ")]
    assert names == ["kd_noise", "kd_ods", "kd_conf_ods", "be_conf_ods"]


def test_diverged_student_is_left_out_of_the_diagrams(tmp_path):
    make_run(tmp_path)
    path = tmp_path / "predictions" / "kd.npz"
    arrays = dict(np.load(path))
    arrays["test_probs"][:] = np.nan
    np.savez(path, **arrays)
    page = read_page(report.write_report(tmp_path))
    assert [tag for tag, _ in page.tags].count("svg") == 3 + 4 + 6
    assert "coverage curves left out: kd.npz: confidence must be finite" in page.text
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    (label,) = (label for label in labels if "coverage" in label)
    assert "kd_noise" in label and "kd " not in label
    assert not (tmp_path / "figures" / "reliability_kd.svg").exists()
    assert "diagrams left out: kd.npz: probs must be probabilities" in page.text


@pytest.mark.parametrize("text", [None, "{", "{}", "[1]", '[{"kind": "student"}]'])
def test_no_results_no_report(tmp_path, text):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=r"results\.json"):
        report.write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_all_text_is_escaped(tmp_path):
    make_run(tmp_path, hostile=True)
    path = report.write_report(tmp_path)
    page = read_page(path)
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1 and "i" not in names
    assert names.count("svg") == 3 + 4 + 7
    files = {p.name for p in (tmp_path / "figures").iterdir()}
    assert {"reliability__a_b_ _i___.svg".replace(" ", "_")} < files
    for said in (HOSTILE, "<script>alert(1)", "$a_b$ <i>|*"):
        assert said in page.text
    labels = [a["aria-label"] for tag, a in page.tags if tag == "svg"]
    assert any("$a_b$ <i>|*" in label for label in labels)
    markdown = (tmp_path / "results.md").read_text()
    assert "<script" not in markdown and r"$a_b$ &lt;i>\|\*" in markdown
    widths = {len(markdown_cells(t)[0]) for t in markdown.split("\n") if t[:1] == "|"}
    assert widths == {len(table.COLUMNS), 6}


def test_a_name_cannot_lead_out_of_the_work_directory(tmp_path):
    make_run(tmp_path / "run")
    secret = tmp_path / "run" / "predictions" / "kd.npz"
    os.replace(secret, tmp_path / "run" / "kd.npz")
    rows = [student("../kd", 0.3)]
    (tmp_path / "run" / "results.json").write_text(json.dumps(rows))
    page = read_page(report.write_report(tmp_path / "run"))
    assert "Reliability diagrams left out: there is no kd.npz." in page.text


def test_failure_leaves_the_old_report(tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text("[]")
    (tmp_path / "results.md").write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write_report(tmp_path)
    assert (tmp_path / "results.md").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"results.json", "results.md"}


def test_import_is_light():
    heavy = {"matplotlib", "jax", "PIL", "scipy"}
    code = f"import sys, edp.report; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_spread_by_hand():
    # Two at the same place move half a gap each; the third is far enough away.
    assert line_ends.spread([5.0, 0.0, 5.0], 1.0, -9, 9) == [4.5, 0.0, 5.5]
    # Near the edge they are pushed inwards.
    assert line_ends.spread([0.0, 0.1], 1.0, 0.0, 9.0) == pytest.approx([0.0, 1.0])
    assert line_ends.spread([9.0, 8.9], 1.0, 0.0, 9.0) == pytest.approx([9.0, 8.0])


def test_spread_keeps_order_and_gap():
    values = np.random.default_rng(1).normal(size=12)
    places = np.array(line_ends.spread(values, 0.3, -2.0, 2.0))
    assert (np.argsort(places) == np.argsort(values)).all()
    assert np.diff(np.sort(places)).min() >= 0.3 - 1e-9
    assert places.min() >= -2 - 1e-9 and places.max() <= 2 + 1e-9


def points(svg, style):
    """The points of the one path drawn with `style`."""
    (path,) = re.findall(rf'<path d="([^"]*)" [^>]*{re.escape(style)}', svg)
    return np.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2)


def test_reliability_draws_the_occupied_bins(tmp_path):
    # Two inputs at confidence 0.95, one of them right, and one at 0.6, right.
    probs = np.array([[[0.95, 0.05], [0.95, 0.05], [0.4, 0.6]]], np.float32)
    np.savez(tmp_path / "a.npz", test_probs=probs, test_labels=np.array([0, 1, 1]))
    page = sections.reliability_section(
        tmp_path, [student("a", 0.1, temperature=0.5)]
    ).html
    corner, size = np.array([38, 174]), np.array([164, -166])
    drawn = (points(page, "stroke: var(--s0); stroke-width: 1.6") - corner) / size
    np.testing.assert_allclose(drawn, [[0.6, 1], [0.95, 0.5]], atol=1e-4)
    # At T = 1/2 the odds are squared: 0.36 to 0.16 and 0.9025 to 0.0025.
    drawn = points(
        page, "stroke-dasharray: 4.8,2.4; stroke-dashoffset: 0; stroke: var(--muted)"
    )
    expected = [[0.36 / 0.52, 1], [0.9025 / 0.905, 0.5]]
    np.testing.assert_allclose((drawn - corner) / size, expected, atol=1e-4)


def test_error_against_coverage_is_that_of_the_predictions(tmp_path):
    # Of the first member, the one of 0.9 is right and that of 0.6 wrong; of the
    # second both the other way about; the mean is right on both, surer of the first.
    members = [[[0.9, 0.1], [0.6, 0.4]], [[0.45, 0.55], [0.1, 0.9]]]
    labels = np.array([0, 1])
    np.savez(tmp_path / "teachers.npz", test_probs=members, test_labels=labels)
    np.savez(
        tmp_path / "kd.npz",
        test_probs=np.array([[[0.2, 0.8], [0.4, 0.6]]]),
        test_labels=labels,
    )
    rows = [
        {"model": f"DE-{m}", "kind": "ensemble", "num_members": m} for m in (1, 2)
    ] + [student("kd", 0.1)]
    section = risk.risk_section(tmp_path, rows)
    # The student's surer prediction is the wrong one.
    (label,) = (a["aria-label"] for tag, a in Page(section.html).tags if tag == "svg")
    assert label == (
        "Error against coverage; area under the curve: "
        "DE-1 0.2500, DE-2 0.0000, kd 0.7500"
    )
    svg = section.figures["risk_coverage"]
    assert svg in section.html
    whole = points(svg, "stroke: var(--ink); stroke-width: 2.2")
    one = points(svg, "stroke: var(--muted); stroke-width: 1.6")
    kd = points(svg, "stroke: var(--s0); stroke-width: 1.3")
    # At half and at full coverage.
    for drawn in (whole, one, kd):
        np.testing.assert_allclose(drawn[:, 0], [48 + 250 / 2, 48 + 250], atol=0.01)
    heights = np.array([drawn[:, 1] for drawn in (whole, one, kd)])
    above = (heights[0] - heights) / (heights[0, 0] - heights[2, 0])
    np.testing.assert_allclose(above, [[0, 0], [0, 0.5], [1, 0.5]], atol=1e-3)


def test_curves_of_coverage_are_thin_and_end_at_the_error(tmp_path):
    rng = np.random.default_rng(5)
    coverage, value = metrics.risk_coverage(rng.random(5000), rng.random(5000) < 0.7)
    curves = [
        risk.Curve(f"student_number_{i:02d}", coverage, value, i, i % 2 == 0)
        for i in range(20)
    ]
    svg = risk.risk_coverage(curves)
    assert len(standalone(svg)) < 60_000
    drawn = points(
        risk.risk_coverage(curves[:1]), "stroke: var(--s0); stroke-width: 1.3"
    )
    assert len(drawn) == 120
    assert drawn[-1, 0] == pytest.approx(48 + 250, abs=0.01)
    # Each point is one of the whole curve.
    coverage = (drawn[:, 0] - 48) / 250
    expected = value[np.rint(coverage * 5000).astype(int) - 1]
    line = np.polyval(np.polyfit(expected, drawn[:, 1], 1), expected)
    np.testing.assert_allclose(drawn[:, 1], line, atol=0.02)


def test_bars_are_as_long_as_their_values():
    entries = [figures.Bar("a", 0.5, 1), figures.Bar("b", 0.2, 2)]
    svg = figures.bars("pairwise KL", entries)
    long, short = (np.ptp(points(svg, f"fill: var(--s{i})")[:, 0]) for i in (1, 2))
    assert short / long == pytest.approx(0.4)


def test_student_line_stands_where_its_value_is():
    levels = [
        figures.Level("between", 0.25, 1.5, 0, False),
        figures.Level("better than all", 0.1, 2, 1, True),
        figures.Level("worse than one", 0.4, 0, 2, True),
    ]
    svg = figures.cnll_by_ensemble_size([1, 2], [0.3, 0.2], levels)
    curve = points(svg, "stroke: var(--ink); stroke-width: 2;")
    lines = [points(svg, f"stroke: var(--s{i}); stroke-width: 1.6") for i in range(3)]
    heights = [line[:, 1].mean() for line in lines]
    middle, half = curve[:, 1].mean(), np.ptp(curve[:, 1]) / 2
    np.testing.assert_allclose(heights, middle + half * np.array([0, 3, -3]), atol=0.02)
    # Only the first meets the curve: half way along it.
    rings = re.findall(r'x="([\d.]+)" y="([\d.]+)" style="fill: var\(--paper\)', svg)
    np.testing.assert_allclose(np.array(rings, float), [curve.mean(axis=0)], atol=0.02)


def test_figures_say_their_values():
    levels = [figures.Level("<a>", 0.25, 1.5, 0, True)]
    svg = figures.cnll_by_ensemble_size([1, 2], [0.3, 0.2], levels)
    label = Page(svg).tags[0][1]["aria-label"]
    assert label == "Calibrated NLL: DE-1 0.3000, DE-2 0.2000, <a> 0.2500"
    entries = [figures.Bar("train", 0.004, None), figures.Bar("ods", 0.2, 1)]
    svg = figures.bars("disagreement rate", entries, percent=True)
    label = Page(svg).tags[0][1]["aria-label"]
    assert label == "disagreement rate: train 0.4 %, ods 20.0 %"


def test_figures_are_files_too(run):
    folder = run[0] / "figures"
    names = {path.name for path in folder.iterdir()}
    diversities = ("pairwise_kl", "disagreement_rate", "variance", "error")
    students = [row["model"] for row in run[1] if row["kind"] == "student"]
    assert names == {
        "cnll.svg",
        "pareto.svg",
        "risk_coverage.svg",
        *(f"diversity_{key}.svg" for key in diversities),
        *(f"reliability_{name}.svg" for name in ["DE-4", *students]),
    }
    labels = [a["aria-label"] for tag, a in read_page(run[2]).tags if tag == "svg"]
    for path in folder.iterdir():
        assert path.stat().st_size < 60_000
        text = path.read_text(encoding="utf-8")
        root = ET.fromstring(text)
        assert root.attrib["aria-label"] in labels
        assert "var(" not in text and "class=" not in text
        ids = {element.get("id") for element in root.iter()}
        for name in re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', text):
            assert "".join(name) in ids


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


def test_a_narrow_terminal_does_without_the_spare_column(run):
    for width, has in ((80, False), (99, False), (120, True)):
        text = report.format_table(run[1], width=width)
        assert max(map(len, text.splitlines())) <= width
        assert ("AURC" in text) is has
        for heading in ("cNLL", "Brier", "cost"):
            assert heading in text


def test_a_figure_as_a_file_needs_no_page():
    drawn = figures.bars("a & <b>", [figures.Bar("é <i>", 0.5, 1)])
    text = standalone(drawn)
    root = ET.fromstring(text.encode())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["aria-label"] == "a & <b>: é <i> 0.5"
    *_, width, height = map(float, drawn.split('"')[1].split())
    assert root.attrib["viewBox"] == f"-12 -12 {width + 24:g} {height + 24:g}"
    assert float(root.attrib["height"]) == height + 24
    paper = root[0].attrib
    assert paper["fill"] == "#fff" and float(paper["width"]) == width + 24
    assert "var(" not in text and "fill: #b9520f" in text
    scales = re.findall(r"scale\((\S+) -(\S+)\)", text)
    assert scales == [("0.105", "0.105"), ("0.11", "0.11"), ("0.12", "0.12")]
    # Nothing but the colours and the frame is another.
    assert text.count("<path") == drawn.count("<path") > 3


@pytest.mark.parametrize("channels", [1, 3])
def test_image_uri_keeps_the_pixels(channels):
    values = np.random.default_rng(2).integers(0, 256, (8, 6, channels))
    uri = gallery.image_uri(values / 255)
    raw = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(raw)))
    np.testing.assert_array_equal(pixels.reshape(values.shape), values)
    large = gallery.image_uri(np.full((200, 100, channels), 2.0))
    raw = base64.b64decode(large.removeprefix("data:image/png;base64,"))
    picture = Image.open(io.BytesIO(raw))
    assert picture.size == (32, 64) and np.asarray(picture).min() == 255


def test_gallery_shows_the_change_amplified(run):
    # All changes are 0.04, and 10 is the largest round gain that keeps them in range.
    page = read_page(run[2])
    assert "10 times amplified" in page.text
    images = [a for tag, a in page.tags if tag == "img"]
    change = next(a for a in images if a["alt"] == "change by kd")
    raw = base64.b64decode(change["src"].split(",")[1])
    values = np.asarray(Image.open(io.BytesIO(raw))) / 255
    assert set(np.round(values.ravel(), 1)) == {0.1, 0.9}
    arrays = np.load(run[0] / "gallery.npz")
    probs = arrays["probs"][0, :, 0]
    said = [f"{['ant', 'bee', 'cat'][p.argmax()]} {p.max():.2f}" for p in probs]
    assert images[0]["alt"] == "clean; members predict " + ", ".join(said)
    item = next(a for tag, a in page.tags if tag == "li")
    assert item["class"] == ("right" if probs[0].argmax() == 0 else "wrong")
    assert item["style"] == f"--p:{100 * probs[0].max():.0f}%"


def write_sweep(path):
    """An analysis of one perturbation at two step sizes and of one student."""
    clean = {"perturbation": None, "step_size": None}
    moved = {"perturbation": "ods"}
    student_row = {
        "model": "<be>",
        "inputs": "perturbed",
        "match_kl": 0.5,
        "tempered_match_kl": 0.5,
        "pairwise_kl": 0.25,
        "teacher_pairwise_kl": 0.75,
        "error": 0.125,
    }
    analysis = {
        "diversity": [
            {"inputs": "train", "pairwise_kl": 0.1, "error": 0.0} | clean,
            {"inputs": "test", "pairwise_kl": 0.4, "error": 0.2} | clean,
            {"inputs": "<be>", "pairwise_kl": 0.3, "error": 0.1, "step_size": 2 / 255}
            | moved,
            {"inputs": "<be>@1", "pairwise_kl": 0.2, "error": 0.05}
            | moved
            | {"step_size": 1 / 255},
            {"inputs": "<be>@2", "pairwise_kl": 0.5, "error": 0.3}
            | moved
            | {"step_size": 4 / 255},
        ],
        "students": [
            student_row,
            student_row | {"inputs": "test", "pairwise_kl": None},
        ],
    }
    path.write_text(json.dumps(analysis))
    return [student("<be>", 0.3, "ods")]


def test_diversity_is_drawn_against_the_step_size(tmp_path):
    rows = write_sweep(tmp_path / "analysis.json")
    section = diversity.diversity_section(tmp_path / "analysis.json", rows).html
    labels = [a["aria-label"] for tag, a in Page(section).tags if tag == "svg"]
    assert labels == [
        # Bars are of the student's own step alone.
        "pairwise KL: training inputs 0.1, test inputs 0.4, <be>: ods, η 2/255 0.3",
        "mean member error: training inputs 0.0 %, test inputs 20.0 %, "
        "<be>: ods, η 2/255 10.0 %",
        "pairwise KL by step size: training inputs 0.1; test inputs 0.4; "
        "<be> 0.2 at 1, 0.3 at 2, 0.5 at 4",
        "mean member error by step size: training inputs 0; test inputs 20; "
        "<be> 5 at 1, 10 at 2, 30 at 4",
    ]
    figure = section[section.index("Against the step size") :]
    curve, _ = re.findall(r'<path d="([^"]*)" [^>]*stroke: var\(--s0\)', figure)[::2]
    curve = np.array(re.findall(r"-?[\d.]+", curve), float).reshape(-1, 2)
    corner, width = np.array([48, 218]), 220
    steps, heights = ((curve - corner) * [1, -1]).T
    np.testing.assert_allclose(steps / steps[0], [1, 2, 4], rtol=1e-3)
    np.testing.assert_allclose(heights / heights[0], [1, 1.5, 2.5], rtol=1e-3)
    assert 0 < steps[0] < steps[2] < width


def test_students_stand_beside_their_teachers(tmp_path):
    rows = write_sweep(tmp_path / "analysis.json")
    section = diversity.diversity_section(tmp_path / "analysis.json", rows).html
    head, perturbed, test = Page(section).rows
    # No column of what no row has, nor twice the same at temperature 1.
    columns = ["KL to it", "pairwise KL", "teachers'", "error %"]
    assert [h.replace("\N{NO-BREAK SPACE}", " ") for h in head] == [
        "student",
        "inputs",
        *columns,
    ]
    values = ["0.5000", "0.2500", "0.7500", "12.50"]
    assert perturbed == ["<be>", "perturbed", *values]
    assert test == ["<be>", "test", values[0], "–", *values[2:]]
