"""Section on the teachers' diversity, and on students that match it."""

import pathlib
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from edp.report.figures import basic, step_sizes
from edp.report.files import read_of_same_run
from edp.report.page.markup import (
    Section,
    figure,
    heading,
    panels,
    paragraph,
    shorten,
)
from edp.report.page.table import Column, html_table
from edp.report.rows import NUM_SERIES, Row, is_plain, number, series_by_student
from edp.report.seeds.number_format import DASH

_CLEAN = {"train": "training inputs", "test": "test inputs"}
_BARS = (
    ("pairwise_kl", "pairwise KL", False),
    ("disagreement_rate", "disagreement rate", True),
    ("variance", "variance", False),
    ("error", "mean member error", True),
)
_CURVES = (_BARS[0], _BARS[3])
_COLUMNS = (
    Column("match_kl", "KL", "", 1, 4),
    Column("tempered_match_kl", "at its τ", "", 1, 4),
    Column("member_match_kl", "by members", "", 1, 4),
    Column("pairwise_kl", "pairwise KL", "", 1, 4),
    Column("teacher_pairwise_kl", "teachers'", "", 1, 4),
    Column("disagreement_rate", "disagree %", "", 100, 2),
    Column("teacher_disagreement_rate", "teachers'", "", 100, 2),
    Column("error", "error %", "", 100, 2),
    Column("teacher_error", "teachers'", "", 100, 2),
)


def diversity_section(path: pathlib.Path, rows: Sequence[Row]) -> Section:
    """Draws the diversity of teachers and students, from `analysis.json`."""
    analysis, why = read_of_same_run(path)
    entries = analysis.get("diversity")
    if not entries:
        why = why or f"{path.name} has no diversity"
        return Section(left_out=f"the teachers' diversity: {why}")
    colours = series_by_student(rows)
    plain = {str(row["model"]) for row in rows if is_plain(row)}
    # A student's name has no @.
    own = [e for e in entries if "@" not in str(e.get("inputs"))]
    bars = _bars([e for e in own if str(e.get("inputs")) not in plain], colours)
    steps = _curves(entries, colours)
    students = _students(analysis.get("students") or [])
    notes = [paragraph(str(n), "note") for n in analysis.get("notes") or []]
    body = Markup().join([bars.html, *notes, steps.html, students])
    return Section(body, {**bars.figures, **steps.figures})


def _bars(entries: Sequence[Row], colours: Mapping[str, int]) -> Section:
    """Draws bars for clean inputs and for inputs perturbed as for each student."""
    figures = {}
    for key, title, percent in _BARS:
        bars = []
        for entry in entries:
            inputs, value = str(entry.get("inputs")), number(entry, key)
            if value is None:
                continue
            name = _CLEAN.get(inputs)
            if name is None:
                name = f"{shorten(inputs, 22)}: {entry.get('perturbation') or 'none'}"
                if (step := number(entry, "step_size")) is not None:
                    name += f", η {255 * step:.3g}/255"
            bars.append(basic.Bar(shorten(name, 46), value, colours.get(inputs)))
        if bars:
            figures[f"diversity_{key}"] = basic.bars(title, bars, percent)
    body = figure(
        f"{_summary(entries)}Diversity of the teachers on clean inputs (grey) and on "
        "training inputs perturbed as for each student (a perturbation that several "
        "students share bears the name of the first). Students see training inputs: if "
        "the teachers fit these almost perfectly, they agree on them, and the student "
        "cannot learn what makes the ensemble better than one network. A perturbation "
        "works if it raises the diversity at least to that on test inputs. Compare it "
        "with the error: teachers that are merely wrong also disagree.",
        panels(figures.values()),
    )
    return Section(body, figures)


def _summary(entries: Sequence[Row]) -> str:
    """Says how far the teachers disagree on training and on test inputs."""
    found = {str(e.get("inputs")): number(e, "pairwise_kl") for e in entries}
    train, test = found.pop("train", None), found.pop("test", None)
    if train is None or test is None:
        return ""
    perturbed = [value for value in found.values() if value is not None]
    reach = sum(value >= test for value in perturbed)
    ending = (
        f" {reach} of {len(perturbed)} perturbations reach that of test inputs."
        if perturbed
        else ""
    )
    return (
        f"The teachers' pairwise KL is {train:.3g} on training inputs and {test:.3g} "
        f"on test inputs.{ending} "
    )


def _curves(entries: Sequence[Row], colours: Mapping[str, int]) -> Section:
    """Draws each perturbation over step sizes; nothing if it has one step size."""
    figures = {}
    for key, title, percent in _CURVES:
        levels, points = {}, {}
        for entry in entries:
            inputs, value = str(entry.get("inputs")), number(entry, key)
            name, _, _ = inputs.partition("@")
            step = number(entry, "step_size")
            if value is None:
                continue
            if name in _CLEAN:
                levels[_CLEAN[name]] = value
            elif step is not None:
                points.setdefault(name, {})[step] = value
        lines = [
            step_sizes.StepSizeCurve(
                shorten(name, 20), sorted(found.items()), colours.get(name)
            )
            for name, found in points.items()
            if len(found) > 1 and (name in colours or len(points) <= NUM_SERIES)
        ]
        if lines:
            drawn = step_sizes.by_step_size(title, lines, levels, percent)
            figures[f"step_size_{key}"] = drawn
    if not figures:
        return Section(Markup())
    body = heading("Against the step size") + figure(
        "The same on training inputs perturbed with several step sizes; level lines "
        "are clean inputs. Look for the step size at which a perturbation reaches the "
        "diversity on test inputs, and for the perturbation that reaches it with the "
        "least error. If noise of the same size raises neither, the direction matters. "
        "A step size at which the error rises with the diversity is too large.",
        panels(figures.values()),
    )
    return Section(body, figures)


def _students(entries: Sequence[Row]) -> Markup:
    """Returns a table of students and their teachers; nothing without students."""
    if not entries:
        return Markup()
    columns = [c for c in _COLUMNS if any(c.text(entry) != DASH for entry in entries)]
    if all(e.get("match_kl") == e.get("tempered_match_kl") for e in entries):
        columns = [c for c in columns if c.key != "tempered_match_kl"]
    texts = (Column("model", "student", ""), Column("inputs", "inputs", ""))
    rows = [
        {**entry, "kind": "student", "inputs": _inputs(str(entry.get("inputs")))}
        for entry in entries
    ]
    return heading("Students and their teachers") + figure(
        "KL is the mean of KL(teachers ‖ student), on clean inputs and on the "
        "perturbed inputs the student was trained on. For a BatchEnsemble, the table "
        "also has the KL from each teacher to the member trained on it, and the "
        "diversity of members and teachers. A student close to its teachers on "
        "training inputs but far on test inputs learned a match that does not "
        "generalise. Members that differ less than their teachers have collapsed "
        "towards each other.",
        html_table(rows, (*texts, *columns)),
    )


def _inputs(name: str) -> str:
    return _CLEAN.get(name, name).removesuffix(" inputs")
