"""Headline, tiles and verdicts of a run, as short texts.

A verdict ("better than") needs an interval of the difference that excludes 0; without
one the numbers stand alone.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edp.report.evidence import Difference, Evidence, differences
from edp.report.rows import (
    NO_GAP,
    Row,
    best_student,
    ensemble_rows,
    is_plain,
    is_selected_on_validation,
    largest_ensemble,
    number,
    student_rows,
)
from edp.report.seeds.number_format import DASH

_TILES = (
    ("accuracy", "Accuracy", "{:.1f} %", 100),
    ("cnll", "Calibrated NLL", "{:.3f}", 1),
    ("inference_cost", "Cost, in forward passes", "{:.3g}", 1),
)


class Tile(NamedTuple):
    """One quantity of the models compared.

    Attributes:
      title: the quantity.
      value: that of the first model, formatted.
      others: (name of the model, value) of the others.
    """

    title: str
    value: str
    others: Sequence[tuple[str, str]]


class Comparison(NamedTuple):
    """The best perturbed and the best plain student of one kind.

    Attributes:
      kind: kind of student; "" if unknown.
      perturbed: row of the perturbed student.
      plain: row of the plain student.
      difference: perturbed minus plain; None without predictions of both.
    """

    kind: str
    perturbed: Row
    plain: Row
    difference: Difference | None


class Findings(NamedTuple):
    """What a reader should know first.

    Attributes:
      headline: one line with the best student, the ensemble and one network.
      verdicts: sentences on their differences.
      tiles: accuracy, calibrated NLL and cost.
      cautions: short sentences on what limits all this.
      comparisons: the effect of perturbations, by kind of student.
    """

    headline: str
    verdicts: Sequence[str]
    tiles: Sequence[Tile]
    cautions: Sequence[str]
    comparisons: Sequence[Comparison]


def judge(
    rows: Sequence[Row], evidence: Evidence, unfinished: Sequence[str] = ()
) -> tuple[list[Row], Findings]:
    """Compares the models of a run.

    Args:
      rows: rows of `results.json`.
      evidence: the scores of each test image, where predictions exist.
      unfinished: names of the students that are not trained yet.

    Returns:
      The rows with `validation_cnll`, and with `gap_closed` replaced by `NO_GAP` if
      DE-M is not clearly better than DE-1; and the findings.
    """
    scored = evidence.scored
    rows = [
        {**row, "validation_cnll": scored[name].validation_cnll}
        if (name := str(row["model"])) in scored
        else row
        for row in rows
    ]
    best, last = best_student(rows), next(iter(largest_ensemble(rows)), None)
    first = next((r for r in ensemble_rows(rows) if r.get("num_members") == 1), None)
    models = [row for row in (best, last, first if first is not last else None) if row]
    pairs = _pairs(rows)
    wanted = [*pairs.values(), *itertools.combinations(models, 2)]
    found = differences(scored, [(_name(a), _name(b)) for a, b in wanted])
    comparisons = [
        Comparison(kind, row, of, found.get((_name(row), _name(of))))
        for kind, (row, of) in pairs.items()
    ]
    verdicts = []
    if best:
        plain = [c.plain for c in comparisons if c.perturbed is best]
        references = [(of, _in_sentence(of)) for of in models[1:]]
        references += [(of, f"the best plain student {_name(of)}") for of in plain]
        verdicts.append(_verdict(_name(best), best, references, found))
    if last and first and last is not first:
        verdict = _verdict(_subject(last), last, [(first, _in_sentence(first))], found)
        if not _has_gap(last, first, found.get((_name(last), _name(first)))):
            rows = [
                {**row, "gap_closed": NO_GAP} if _has_cnll(row) else row for row in rows
            ]
            verdict = verdict or f"{_subject(last)} is not better than one network."
            verdicts.append(f"{verdict.removesuffix('.')}: there is no gap to close.")
        elif not best:
            verdicts.append(verdict)
    return rows, Findings(
        headline=_headline(rows, models, unfinished),
        verdicts=[verdict for verdict in verdicts if verdict],
        tiles=_tiles(models),
        cautions=_cautions(rows, evidence, unfinished),
        comparisons=comparisons,
    )


def _name(row: Row) -> str:
    return str(row["model"])


def _pairs(rows: Sequence[Row]) -> dict[str, tuple[Row, Row]]:
    """Returns the best perturbed and the best plain student by kind."""
    kinds: dict[str, list[Row]] = {}
    for row in student_rows(rows):
        kinds.setdefault(str(row.get("student") or ""), []).append(row)
    pairs = {}
    for kind, students in kinds.items():
        perturbed = best_student([row for row in students if not is_plain(row)])
        plain = best_student([row for row in students if is_plain(row)])
        if perturbed and plain:
            pairs[kind] = (perturbed, plain)
    return pairs


def _has_gap(last: Row, first: Row, gap: Difference | None) -> bool:
    """Returns whether DE-M is better than DE-1, clearly so if there is an interval."""
    if gap is not None:
        return gap.sign < 0
    return _has_cnll(last) and _has_cnll(first) and last["cnll"] < first["cnll"]


def _has_cnll(row: Row) -> bool:
    return number(row, "cnll") is not None


def _headline(
    rows: Sequence[Row], models: Sequence[Row], unfinished: Sequence[str]
) -> str:
    """Returns "Best student a: cNLL 0.126 at cost 1. Ensemble of 4: ..."."""
    models = [row for row in models if _has_cnll(row)]
    if not models:
        return "No model has a calibrated NLL yet."
    parts = []
    for row in models:
        if row.get("kind") == "student":
            several = len(student_rows(rows)) > 1 or unfinished
            name = f"{'Best student' if several else 'Student'} {row['model']}"
        else:
            name = _subject(row)
        cost = number(row, "inference_cost")
        at = "" if cost is None else f" at cost {cost:.3g}"
        parts.append(f"{name}: {'' if parts else 'cNLL '}{row['cnll']:.3f}{at}.")
    # Predictions made elsewhere have no seed.
    return " ".join([*parts, *["One seed."] * any("seed" in row for row in rows)])


def _subject(row: Row) -> str:
    """Names an ensemble as the start of a sentence."""
    members = row.get("num_members")
    return "One network" if members == 1 else f"Ensemble of {members}"


def _in_sentence(row: Row) -> str:
    """Names an ensemble within a sentence."""
    return "one network" if row.get("num_members") == 1 else "the ensemble"


def _verdict(
    subject: str,
    row: Row,
    references: Sequence[tuple[Row, str]],
    found: Mapping[tuple[str, str], Difference],
) -> str:
    """Returns "a is better than b (cNLL ...); worse than c (...)."; "" without any.

    Only the first difference says what the numbers are.
    """
    parts = []
    for of, name in references:
        if difference := found.get((_name(row), _name(of))):
            text = difference_text(difference, brief=bool(parts))
            parts.append(f"{relation(difference)} {name} ({text})")
    return f"{subject} is {'; '.join(parts)}." if parts else ""


def relation(difference: Difference) -> str:
    """Returns "better than", "worse than" or "not clearly different from"."""
    words = ("not clearly different from", "worse than", "better than")
    return words[difference.sign]


def difference_text(difference: Difference, *, brief: bool = False) -> str:
    """Returns "cNLL −0.0163, 95 % interval −0.0240 to −0.0090".

    Args:
      difference: to be formatted.
      brief: whether to leave out the words.
    """
    value, low, high = (f"{v:+.4f}".replace("-", "−") for v in difference)
    if brief:
        return f"{value}, {low} to {high}"
    return f"cNLL {value}, 95 % interval {low} to {high}"


def _tiles(models: Sequence[Row]) -> list[Tile]:
    tiles = []
    for key, title, form, scale in _TILES:
        values = [number(row, key) for row in models]
        if any(value is not None for value in values):
            texts = [DASH if v is None else form.format(scale * v) for v in values]
            names = [
                str(row["model"])
                if row.get("kind") == "student"
                else _subject(row).lower()
                for row in models
            ]
            others = list(zip(names[1:], texts[1:], strict=True))
            tiles.append(Tile(title, texts[0], others))
    return tiles


def _cautions(
    rows: Sequence[Row], evidence: Evidence, unfinished: Sequence[str]
) -> list[str]:
    """Returns sentences on what limits the findings."""
    sentences = []
    if unfinished:
        sentences.append(f"Not finished: {', '.join(unfinished)}.")
    if evidence.scored:
        sentences.append(
            "Intervals are over test images and do not include the variation between "
            "seeds."
        )
    elif any(_has_cnll(row) for row in rows):
        sentences.append("There are no predictions to compute intervals from.")
    for row in largest_ensemble(rows):
        best = number(row, "best_cnll")
        if best is not None and round(best, 3) < round(number(row, "cnll") or 0, 3):
            sentences.append(
                f"With the {row.get('best_pool')} pool, chosen on the validation "
                f"images, the ensemble has a calibrated NLL of {best:.3f}."
            )
    if len(student_rows(rows)) > 1 and not is_selected_on_validation(rows):
        sentences.append(
            "The best student was chosen on the test images, as validation scores are "
            "missing."
        )
    if bound := [str(row["model"]) for row in rows if row.get("temperature_at_bound")]:
        sentences.append(
            "The fitted temperature is at the bound of its search range, so calibrated "
            f"values are unreliable, for {', '.join(bound)}."
        )
    skipped = [f"{n:g} of {r['model']}" for r in rows if (n := _skipped(r))]
    if skipped:
        sentences.append(
            "Training steps with a non-finite loss or gradient were skipped: "
            f"{', '.join(skipped)}."
        )
    return sentences


def _skipped(row: Row) -> float:
    return number(row, "skipped_steps") or 0
