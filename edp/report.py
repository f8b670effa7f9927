"""The report of a run, from the files in its work directory alone.

`write_report` may be called on a run that is only partly done, and again when
more of it is: whatever is missing is left out with a plain sentence.
"""

import html
import importlib.resources
import json
import math
import os
import pathlib
import re
import string
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edp.errors import InputError

Row = Mapping[str, Any]

_DASH = "–"
_GALLERY_BYTES = 1_400_000
_DIVERSITY = (
    ("pairwise_kl", "pairwise KL", False),
    ("disagreement_rate", "disagreement rate", True),
    ("error", "mean member error", True),
)


class Column(NamedTuple):
    """One column of the results table.

    Attributes:
      key: of the row.
      title: the heading.
      short: the heading where there is little room.
      scale: what a number is multiplied by; None for a column of text.
      digits: decimals shown.
      better: +1 where higher is better, -1 where lower is, 0 where it is no
        result.
    """

    key: str
    title: str
    short: str
    scale: float | None = None
    digits: int = 0
    better: int = 0

    def text(self, row: Row) -> str:
        """The cell's text, unescaped; a dash where there is no value."""
        value = row.get(self.key)
        if self.scale is None:
            return _DASH if value in (None, "") else " ".join(str(value).split())
        number = _number(row, self.key)
        if number is None:
            return _DASH
        return f"{self.scale * number:.{self.digits}f}"


COLUMNS = (
    Column("model", "model", "model"),
    Column("student", "student", "student"),
    Column("perturbation", "perturbation", "perturb."),
    Column("accuracy", "acc %", "acc %", 100, 2, 1),
    Column("nll", "NLL", "NLL", 1, 4, -1),
    Column("cnll", "cNLL", "cNLL", 1, 4, -1),
    Column("ece", "ECE %", "ECE %", 100, 2, -1),
    Column("brier", "Brier", "Brier", 1, 4, -1),
    Column("dee", "DEE", "DEE", 1, 2, 1),
    Column("gap_closed", "gap closed %", "gap %", 100, 1, 1),
    Column("inference_cost", "cost", "cost", 1, 2, 0),
)
_LEGEND = (
    "DE-m is the mean over the ensembles of m of the members. cNLL is the NLL after "
    "temperature scaling on the validation set. DEE is the size of the ensemble with "
    "the same cNLL: 0 is worse than one network, and no more than the whole ensemble "
    "is ever counted. Gap closed is the share of the way from DE-1 to the whole "
    "ensemble in cNLL. Cost is in units of one plain network."
)


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
    """Writes `results.md` and the self-contained `report.html` of a run.

    Reads `results.json` and, where they are there, `config.json`, `run.json`,
    `analysis.json`, `gallery.npz` and `predictions/*.npz`. Each file is written
    whole or not at all.

    Args:
      workdir: the run's work directory.

    Returns:
      The path of `report.html`.

    Raises:
      InputError: if `results.json` is missing or is not a list of rows.
    """
    workdir = pathlib.Path(workdir)
    rows = _read_rows(workdir / "results.json")
    config, no_config = _mapping(workdir / "config.json")
    run, no_run = _mapping(workdir / "run.json")
    facts = run_facts(rows, config, run)
    findings = [*compare_with_plain(rows), *_cautions(rows)]
    name = facts.get("dataset") or workdir.resolve().name
    title = f"Ensemble distillation on {name}"

    lines = [f"# {_escape_markdown(title)}", ""]
    lines += [f"- {_escape_markdown(f'{k}: {v}')}" for k, v in facts.items()]
    lines += ["", format_table(rows, "markdown"), "", _LEGEND, ""]
    lines += [line for said in findings for line in (_escape_markdown(said), "")]
    _write(workdir / "results.md", "\n".join(lines))

    template = importlib.resources.files("edp") / "report_template.html"
    page = string.Template(template.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        findings="".join(_paragraph(said, "finding") for said in findings),
        facts=_facts_section(facts, no_run),
        table=_table_section(rows),
        cnll=_cnll_section(rows),
        diversity=_diversity_section(workdir / "analysis.json", rows),
        reliability=_reliability_section(workdir / "predictions", rows),
        gallery=_gallery_section(workdir / "gallery.npz"),
        configuration=_configuration_section(config, no_config),
    )
    path = workdir / "report.html"
    _write(path, page)
    return path


def format_table(rows: Sequence[Row], style: str = "plain", width: int = 100) -> str:
    """Formats the results table as aligned text, rows in the order given.

    Args:
      rows: rows of `results.json`.
      style: 'plain' for a terminal, or 'markdown', where the best student of
        each column (by the digits shown) is bold if the students differ.
      width: columns of the terminal; the longest texts are cut in the middle
        to fit. Markdown is never cut.

    Returns:
      The table's lines, without a newline at the end.

    Raises:
      ValueError: for another style.
    """
    if style not in ("plain", "markdown"):
        raise ValueError(f"style={style!r}; accepted: 'plain', 'markdown'")
    columns = _shown(rows)
    cells = [[column.text(row) for column in columns] for row in rows]
    if style == "plain":
        heads = [column.short for column in columns]
        widths = [max(map(len, c)) for c in zip(heads, *cells, strict=True)]
        words = [i for i, column in enumerate(columns) if column.scale is None]
        while sum(widths) + 2 * (len(widths) - 1) > width:
            longest = max(words, key=widths.__getitem__)
            if widths[longest] <= 5:
                break
            widths[longest] -= 1
        lines = [heads, ["─" * w for w in widths], *cells]
        return "\n".join(
            "  ".join(
                _shorten(cell, w).ljust(w) if column.scale is None else cell.rjust(w)
                for column, cell, w in zip(columns, line, widths, strict=True)
            ).rstrip()
            for line in lines
        )
    best = _best(rows, columns)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            text = _escape_markdown(cells[i][j])
            bold = row.get("kind") == "student" and cells[i][j] == best.get(column.key)
            cells[i][j] = f"**{text}**" if bold else text
    heads = [column.title for column in columns]
    widths = [max(3, *map(len, c)) for c in zip(heads, *cells, strict=True)]
    rule = [
        "-" * w if column.scale is None else "-" * (w - 1) + ":"
        for column, w in zip(columns, widths, strict=True)
    ]
    return "\n".join(
        "| "
        + " | ".join(
            cell.ljust(w) if column.scale is None else cell.rjust(w)
            for column, cell, w in zip(columns, line, widths, strict=True)
        )
        + " |"
        for line in [heads, rule, *cells]
    )


def compare_with_plain(rows: Sequence[Row]) -> list[str]:
    """Says whether moving the inputs helped, by calibrated NLL on the test set.

    For each kind of student, the best student distilled on moved inputs is set
    against the best one distilled on the inputs as they are (`perturbation`
    'none' or absent).

    Args:
      rows: rows of `results.json`.

    Returns:
      A sentence for each kind of student that has a calibrated NLL and, where
      any two were compared, one on how far to trust it; empty where no student
      has a calibrated NLL.
    """
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("kind") == "student" and _number(row, "cnll") is not None:
            kinds.setdefault(str(row.get("student") or ""), []).append(row)
    said, compared = [], []
    for kind, students in kinds.items():
        of_kind = f" of kind {kind}" if kind else ""
        plain = [row for row in students if _is_plain(row)]
        moved = [row for row in students if not _is_plain(row)]
        if plain and moved:
            said.append(f"Among the students{of_kind}, {_compare(moved, plain)}.")
            compared.append(students)
        else:
            said.append(
                f"There is no {'perturbed' if plain else 'plain'} student{of_kind} "
                "with a calibrated NLL, so whether a perturbation helps cannot be said."
            )
    if not compared:
        return said
    if len({row.get("seed") for students in compared for row in students}) > 1:
        return [*said, "These are single rows, not means over the seeds."]
    several = any(len(students) > 2 for students in compared)
    chosen = ", and the best of several was chosen on the test set" if several else ""
    doubt = f"A single seed gives no uncertainty{chosen}"
    return [*said, f"{doubt}: a small difference may be chance."]


def _compare(moved: Sequence[Row], plain: Sequence[Row]) -> str:
    ours, theirs = (min(group, key=lambda r: r["cnll"]) for group in (moved, plain))
    # Of the values as shown, so that the sentence adds up.
    gap = round(round(ours["cnll"], 4) - round(theirs["cnll"], 4), 4)
    if gap == 0:
        outcome = "no difference to four decimals"
    elif gap < 0:
        outcome = (
            f"{-gap:.4f} lower, so the perturbation is ahead of plain distillation"
        )
    else:
        outcome = f"{gap:.4f} higher, so no perturbation is ahead of plain distillation"
    return (
        f"{_the_best(moved, 'perturbed')} ({ours['model']}, {ours['perturbation']}) "
        f"has a calibrated NLL of {ours['cnll']:.4f} and {_the_best(plain, 'plain')} "
        f"({theirs['model']}) {theirs['cnll']:.4f}: {outcome}"
    )


def _the_best(group: Sequence[Row], word: str) -> str:
    if len(group) == 1:
        return f"the {word} one"
    return f"the best of {len(group)} {word} ones"


def run_facts(rows: Sequence[Row], config: Mapping, run: Mapping) -> dict[str, str]:
    """What the run was, as short texts by heading.

    Args:
      rows: rows of `results.json`.
      config: `config.json`; its dataset, model and seed are looked up.
      run: `run.json`; all of its short entries are taken.
    """
    members = [m for row in _ensemble(rows) if (m := row.get("num_members"))]
    seeds = dict.fromkeys(str(row["seed"]) for row in rows if "seed" in row)
    facts = {
        "dataset": _lookup(config, "dataset", "data"),
        "model": _lookup(config, "model"),
        "members": str(max(members)) if members else "",
        "seed": _lookup(config, "seed") or ", ".join(seeds),
    }
    for key, value in run.items():
        facts.setdefault(str(key).replace("_", " "), _flat(value))
    return {k: v for k, v in facts.items() if v and len(v) <= 300}


def _cautions(rows: Sequence[Row]) -> list[str]:
    bound = [str(row["model"]) for row in rows if row.get("temperature_at_bound")]
    if not bound:
        return []
    return [
        "The temperature was fitted at the bound of its search range, which makes the "
        f"calibrated values doubtful, for {', '.join(bound)}."
    ]


def _shown(rows: Sequence[Row]) -> list[Column]:
    """The columns; `student` only where the students are of several kinds."""
    kinds = {row.get("student") for row in rows if row.get("kind") == "student"}
    return [c for c in COLUMNS if c.key != "student" or len(kinds) > 1]


def _best(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, str]:
    """The best text by column, over students, where they differ."""
    students = [row for row in rows if row.get("kind") == "student"]
    best = {}
    for column in columns:
        texts = {column.text(row) for row in students} - {_DASH}
        if column.better and len(texts) > 1:
            best[column.key] = max(texts, key=lambda text: column.better * float(text))
    return best


def _facts_section(facts: Mapping[str, str], why: str) -> str:
    entries = [
        f"<div{' class=wide' if len(v) > 40 else ''}><dt>{html.escape(k)}</dt>"
        f"<dd>{html.escape(v)}</dd></div>"
        for k, v in facts.items()
    ]
    listed = f"<dl>{''.join(entries)}</dl>" if entries else ""
    if why:
        listed += _absent(f"When, where and with what it ran is left out: {why}.")
    return listed


def _table_section(rows: Sequence[Row]) -> str:
    columns = _shown(rows)
    best = _best(rows, columns)
    heads = "".join(
        f'<th scope="col" data-better="{c.better}"'
        f"{'' if c.scale is None else ' class=number'}>"
        f'<button type="button">{html.escape(c.title)}</button></th>'
        for c in columns
    )
    lines = []
    for row in rows:
        cells = []
        student = row.get("kind") == "student"
        for i, column in enumerate(columns):
            text = column.text(row)
            shown = html.escape(_shorten(text, 32))
            if student and text == best.get(column.key):
                shown = f"<b>{shown}</b>"
            value = ""
            if text != _DASH:
                sortable = text if column.scale is None else repr(row[column.key])
                value = f' data-value="{html.escape(sortable)}"'
            kind = (
                f' title="{html.escape(text)}"'
                if column.scale is None
                else ' class="number"'
            )
            tag = "td" if i else "th"
            scope = "" if i else ' scope="row"'
            cells.append(f"<{tag}{scope}{kind}{value}>{shown}</{tag}>")
        lines.append(
            f'<tr class="{"student" if student else "ensemble"}">{"".join(cells)}</tr>'
        )
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        + _paragraph(
            f"{_LEGEND} Bold: the best student. Click a heading to sort.", "note"
        )
    )


def _cnll_section(rows: Sequence[Row]) -> str:
    sizes = {
        int(row["num_members"]): row["cnll"]
        for row in _ensemble(rows)
        if row.get("num_members") and _number(row, "cnll") is not None
    }
    if not sizes:
        return _absent("No row of an ensemble in results.json has a calibrated NLL.")
    from edp import figures

    colours = _colours(rows)
    levels = [
        figures.Level(
            name=_shorten(str(row["model"]), 20),
            cnll=row["cnll"],
            dee=_number(row, "dee"),
            series=colours[str(row["model"])],
            dashed=_is_plain(row),
        )
        for row in rows
        if row.get("kind") == "student" and _number(row, "cnll") is not None
    ]
    members = sorted(sizes)
    svg = figures.cnll_by_ensemble_size(members, [sizes[m] for m in members], levels)
    return _figure(
        "The heavy curve is the ensemble with one member, two, and so on; each student "
        "is a level line, dashed if it was distilled on the inputs as they are. A "
        "student is worth as many members as the curve has where its line meets it "
        "(the ring). Look for solid lines below dashed ones of the same kind of "
        "student: there the perturbation helped.",
        f'<div class="single">{svg}</div>',
    )


def _diversity_section(path: pathlib.Path, rows: Sequence[Row]) -> str:
    analysis, why = _read(path, _load_json)
    entries = analysis.get("diversity") if isinstance(analysis, dict) else None
    if not entries:
        why = why or f"{path.name} has no diversity in it"
        return _absent(f"The teachers' diversity is left out: {why}.")
    from edp import figures

    colours = _colours(rows)
    plain = {str(row["model"]) for row in rows if _is_plain(row)}
    panels = []
    for key, title, percent in _DIVERSITY:
        bars = []
        for entry in entries:
            inputs, value = str(entry.get("inputs")), _number(entry, key)
            if value is None or inputs in plain:
                continue
            name = {"train": "training inputs", "test": "test inputs"}.get(inputs)
            if name is None:
                step = _number(entry, "step_size")
                name = f"{inputs}: {entry.get('perturbation') or 'none'}"
                name += "" if step is None else f", step {step:.3g}"
            bars.append(figures.Bar(_shorten(name, 44), value, colours.get(inputs)))
        if bars:
            svg = figures.bars(title, bars, percent)
            panels.append(f'<div class="panel">{svg}</div>')
    return _figure(
        "How far the teachers differ on inputs as they are (grey) and on training "
        "inputs moved as for each student. Students see training inputs, so look "
        "first at those: where teachers fit them nearly perfectly they also agree on "
        "them, and what makes an ensemble better than one network stays hidden. A "
        "perturbation does its work if it lifts the diversity to that on test inputs "
        "or above. Read it beside the error: teachers that are merely wrong also "
        "differ.",
        f'<div class="panels large">{"".join(panels)}</div>',
    )


def _reliability_section(folder: pathlib.Path, rows: Sequence[Row]) -> str:
    shown = [row for row in rows if row.get("kind") == "student"]
    ensemble = [row for row in _ensemble(rows) if row.get("num_members")]
    if ensemble:
        shown.insert(0, max(ensemble, key=lambda row: row["num_members"]))
    colours = _colours(rows)
    panels, missing = [], []
    for row in shown:
        name = str(row["model"])
        file = name if row.get("kind") == "student" else "teachers"
        # A name with a slash in it would lead out of the folder.
        path = folder / f"{pathlib.PurePath(file).name}.npz"
        arrays, why = _read(path, _load_arrays("test_probs", "test_labels"))
        if arrays is None:
            missing.append(why)
            continue
        try:
            panels.append(_reliability_panel(row, *arrays, colours.get(name)))
        except InputError as error:  # As after a run that diverged.
            missing.append(f"{path.name}: {error}")
    note = ""
    if missing:
        note = _absent(f"Reliability diagrams left out: {'; '.join(missing)}.")
    if not panels:
        return note or _absent("There is no model to draw a reliability diagram of.")
    return _figure(
        "Of the inputs predicted with a given confidence, how many are right; a dot's "
        "area is the share of inputs in its bin. Dots under the diagonal are "
        "overconfident. Grey and dashed is the same after temperature scaling: what "
        "is then still off the diagonal, no single temperature mends.",
        f'<div class="panels small">{"".join(panels)}</div>{note}',
    )


def _reliability_panel(
    row: Row, probs: np.ndarray, labels: np.ndarray, colour: int | None
) -> str:
    from edp import figures, metrics

    def curve(p):
        bins = metrics.reliability_bins(p, labels, num_bins=15)
        full = bins.counts > 0
        return figures.Curve(
            confidence=bins.confidence[full],
            accuracy=bins.accuracy[full],
            share=bins.counts[full] / bins.counts.sum(),
        )

    probs = probs.mean(axis=0)
    name, temperature = str(row["model"]), _number(row, "temperature")
    calibrated = None
    if temperature is not None:
        calibrated = curve(metrics.apply_temperature(probs, temperature))
    errors = [
        f"{said}\N{NO-BREAK SPACE}{100 * value:.2f}\N{NO-BREAK SPACE}%"
        for said, key in (("ECE", "ece"), ("calibrated", "cece"))
        if (value := _number(row, key)) is not None
    ]
    return (
        f'<div class="panel"><h3 title="{html.escape(name)}">'
        f"{html.escape(_shorten(name, 20))}</h3>"
        + _paragraph(", ".join(errors))
        + figures.reliability(curve(probs), calibrated, colour, name)
        + "</div>"
    )


def _gallery_section(path: pathlib.Path) -> str:
    keys = ("names", "images", "probs", "labels", "class_names")
    arrays, why = _read(path, _load_arrays(*keys))
    if arrays is None:
        return _absent(f"The gallery of perturbed inputs is left out: {why}.")
    from edp import figures

    names, images, probs, labels, class_names = arrays
    names, class_names = [str(n) for n in names], [str(c) for c in class_names]
    changes = images[1:] - images[:1]
    gain = _gain(changes)
    rows, size = [], 0
    for i, label in enumerate(labels):
        views = []
        for p, name in enumerate(names):
            pictures = [images[p, i]]
            if p:
                pictures.append(0.5 + gain * changes[p - 1, i])
            uris = [figures.image_uri(picture) for picture in pictures]
            views.append(_view(name, uris, probs[p, :, i], int(label), class_names))
        said = html.escape(class_names[label])
        row = (
            f'<div class="example"><h3>Example {i + 1}: {said}</h3>'
            f'<div class="views">{"".join(views)}</div></div>'
        )
        size += len(row)
        if rows and size > _GALLERY_BYTES:
            break
        rows.append(row)
    left = ""
    if len(rows) < len(labels):
        left = _paragraph(f"The first {len(rows)} of {len(labels)} examples.", "note")
    return _figure(
        "Inputs as they are and under each perturbation; on the right of a perturbed "
        f"image the change, {gain:g} times amplified around grey. Under it, "
        "the members' predicted classes with their probabilities, bold and green where "
        "that is the label and orange where not. Look for images that seem unchanged "
        "on which the members no longer agree.",
        "".join(rows) + left,
    )


def _view(
    name: str, uris: list[str], probs: np.ndarray, label: int, class_names: list[str]
) -> str:
    """One image, its change, and the members' predictions `probs` [M, K]."""
    said = ["", f"change by {name}"]
    members, told = [], []
    for row in probs:
        top = int(row.argmax())
        kind = "right" if top == label else "wrong"
        told.append(f"{class_names[top]} {row[top]:.2f}")
        members.append(
            f'<li class="{kind}" style="--p:{100 * row[top]:.0f}%">'
            f"<span>{html.escape(class_names[top])}</span>"
            f"<span>{row[top]:.2f}</span></li>"
        )
    said[0] = f"{name}; members predict {', '.join(told)}"
    pictures = "".join(
        f'<img src="{uri}" alt="{html.escape(text)}">'
        for uri, text in zip(uris, said, strict=False)
    )
    return (
        f'<div class="view"><h4>{html.escape(name)}</h4>'
        f'<div class="pair">{pictures}</div><ol>{"".join(members)}</ol></div>'
    )


def _configuration_section(config: Mapping, why: str) -> str:
    if why:
        return _absent(f"The configuration is left out: {why}.")
    text = html.escape(json.dumps(config, indent=2, ensure_ascii=False))
    return f"<details><summary>config.json</summary><pre>{text}</pre></details>"


def _gain(changes: np.ndarray) -> float:
    """The round number that brings nearly all changes to within half the range."""
    if not changes.size:
        return 1.0
    large = float(np.quantile(np.abs(changes), 0.99))
    gains = (1, 2, 3, 5, 10, 20, 30, 50, 100)
    return max((g for g in gains if g * large <= 0.5), default=1)


def _colours(rows: Sequence[Row]) -> dict[str, int]:
    """A series colour for each student, by its place."""
    students = [str(row["model"]) for row in rows if row.get("kind") == "student"]
    return {name: i for i, name in enumerate(dict.fromkeys(students))}


def _ensemble(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.get("kind") == "ensemble"]


def _is_plain(row: Row) -> bool:
    return row.get("kind") == "student" and row.get("perturbation") in (
        None,
        "",
        "none",
    )


def _number(row: Row, key: str) -> float | None:
    """A finite number, or None."""
    value = row.get(key)
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return None


def _lookup(config: Mapping, *keys: str) -> str:
    """The text of the first of `keys`; of a section, its `name` or `source`."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, Mapping):
            value = value.get("name") or value.get("source")
        if value not in (None, ""):
            return _flat(value)
    return ""


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_flat, value))
    return "" if value is None else str(value)


def _paragraph(text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{html.escape(text)}</p>" if text else ""


def _absent(text: str) -> str:
    return _paragraph(text, "absent")


def _figure(caption: str, body: str) -> str:
    return f"<figure><figcaption>{html.escape(caption)}</figcaption>{body}</figure>"


def _escape_markdown(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"([\\`*|\[\]~])", r"\\\1", text)
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


def _shorten(text: str, width: int) -> str:
    """Cuts the middle out of a text that is too long: names differ at the ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def _read_rows(path: pathlib.Path) -> list[Row]:
    rows, why = _read(path, _load_json)
    if why:
        raise InputError(f"no report without results.json: {path}: {why}")
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and "model" in row for row in rows
    ):
        raise InputError(f"{path} is not a list of rows that each name a model")
    return rows


def _mapping(path: pathlib.Path) -> tuple[Mapping, str]:
    value, why = _read(path, _load_json)
    if isinstance(value, dict):
        return value, ""
    return {}, why or f"{path.name} is not a mapping"


def _read(path: pathlib.Path, load: Callable[[pathlib.Path], Any]) -> tuple[Any, str]:
    """What is in a file, or None and a few words on why not."""
    try:
        return load(path), ""
    except FileNotFoundError:
        return None, f"there is no {path.name}"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        return None, f"{path.name} cannot be read ({type(error).__name__})"


def _load_json(path: pathlib.Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _load_arrays(*keys: str) -> Callable[[pathlib.Path], list[np.ndarray]]:
    def load(path: pathlib.Path) -> list[np.ndarray]:
        with np.load(path) as arrays:
            return [arrays[key] for key in keys]

    return load


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
