"""Tables of a sweep, and its figure."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from edp.report.page.markup import escape_markdown
from edp.report.page.table import MODEL, Column, markdown_table, plain_table
from edp.report.rows import Row
from edp.report.seeds.number_format import DASH, mean_text, p_text
from edp.runtime.storage import write_json, write_text

_TEXTS = (Column("setting", "setting", "setting"), MODEL)
_RESULTS = (
    Column("validation_cnll", "validation cNLL", "val. cNLL", 1, 4),
    Column("accuracy", "acc %", "acc %", 100, 2),
    Column("cnll", "cNLL", "cNLL", 1, 4),
    Column("nll", "NLL", "NLL", 1, 4, spare=True),
    Column("ece", "ECE %", "ECE %", 100, 2, spare=True),
    Column("dee", "DEE", "DEE", 1, 2, spare=True),
)
_DIFFERENCES = (
    Column("cnll", "Δ cNLL", "Δ cNLL", 1, 4),
    Column("accuracy", "Δ acc %", "Δ acc %", 100, 2, spare=True),
)
_P = Column("p", "p", "p", 1, spare=True)
_SEEDS = Column("seeds", "seeds", "seeds", 1, spare=True)
_LEGEND = (
    "Mean ± standard error over seeds (n − 1). cNLL: after temperature scaling on the "
    "validation set. Bold (★ on a terminal): the setting of each student with the "
    "lowest mean cNLL on the validation images, on which the temperature is also "
    "fitted; test columns are not used. Δ: this setting minus the first, on the seeds "
    "that have both; p: two-sided paired t-test of Δ cNLL over seeds, not corrected "
    "for multiple comparisons. DE-m is the mean over the ensembles of m of the "
    "members."
)


def write_sweep(
    result: Mapping[str, Any], directory: pathlib.Path, name: str = "sweep"
) -> list[str]:
    """Writes `sweep.json`, `sweep.md` and, with students, `sweep.svg`.

    Args:
      result: the value of `edp.report.seeds.sweep_results.summarize_sweep`.
      directory: created if missing.
      name: name of the files, and in the title.

    Returns:
      The names of the files written.
    """
    # Only the figure needs Matplotlib.
    from edp.report.figures import sweep_figure
    from edp.report.figures.svg import standalone

    svg = sweep_figure.draw(result)
    # First, as `outputs.check_out` knows an interrupted one by it.
    write_json(directory / f"{name}.json", result)
    if svg is not None:
        write_text(directory / f"{name}.svg", standalone(svg))
    text = format_markdown(result, name, has_figure=svg is not None)
    write_text(directory / f"{name}.md", text)
    return [*[f"{name}.svg"] * (svg is not None), f"{name}.json", f"{name}.md"]


def format_terminal(result: Mapping[str, Any], width: int = 100) -> str:
    """Formats the table as aligned text."""
    columns, cells = _table(result["rows"])
    for line, row in zip(cells, result["rows"], strict=True):
        if row.get("best"):
            line[2] = f"★ {line[2]}"
    table = plain_table(columns, cells, width)
    return "\n".join([table, *_best_on_validation(result)])


def format_markdown(
    result: Mapping[str, Any], name: str = "sweep", *, has_figure: bool = True
) -> str:
    """Formats the table in Markdown, with a link to the figure."""
    settings = [_describe(setting) for setting in result["settings"]]
    seeds = sorted({seed for s in result["settings"] for seed in s["seeds"]})
    columns, cells = _table(result["rows"])
    for line, row in zip(cells, result["rows"], strict=True):
        line[:] = map(escape_markdown, line)
        if row.get("best"):
            line[:3] = [f"**{text}**" for text in line[:3]]
    facts = [
        *settings,
        f"Seeds: {', '.join(map(str, seeds))}",
        *_best_on_validation(result),
        *result["notes"],
    ]
    lines = [
        f"# {name.capitalize()}",
        "",
        *(f"- {escape_markdown(fact)}" for fact in facts),
        "",
    ]
    lines += [markdown_table(columns, cells), "", _LEGEND, ""]
    figure = [f"![cNLL by setting]({name}.svg)", ""] * has_figure
    return "\n".join([*lines, *figure])


def _describe(setting: Mapping[str, Any]) -> str:
    """Returns a setting's name, its runs, and its values by full names."""
    values = ", ".join(f"{key}={value}" for key, value in setting["values"].items())
    name, runs = setting["name"] or "as configured", ", ".join(setting["runs"])
    text = name if name == runs else f"{name}: {runs}"
    return f"{text} ({values})" if values else text


def _best_on_validation(result: Mapping[str, Any]) -> list[str]:
    best = result.get("best")
    if best is None:
        return []
    where = f" at {best['setting']}" if best["setting"] else ""
    cnll = mean_text(best["validation_cnll"], 1, 4)
    return [f"Best on validation: {best['model']}{where}, cNLL {cnll} there"]


def _table(rows: Sequence[Row]) -> tuple[list[Column], list[list[str]]]:
    texts = _TEXTS if any(row.get("setting") for row in rows) else _TEXTS[1:]
    differences = [row["difference"] for row in rows if "difference" in row]
    columns = [*texts, *_RESULTS]
    if differences:
        columns += [
            *_DIFFERENCES,
            *([_P] if any("p" in d["cnll"] for d in differences) else []),
        ]
    if len({len(row["seeds"]) for row in rows}) > 1:
        columns.append(_SEEDS)
    return columns, [[_cell(row, column) for column in columns] for row in rows]


def _cell(row: Row, column: Column) -> str:
    if column in _TEXTS:
        return str(row.get(column.key) or DASH)
    if column is _SEEDS:
        return str(len(row["seeds"]))
    difference = row.get("difference", {})
    if column is _P:
        return p_text(difference.get("cnll", {}).get("p"))
    if column in _DIFFERENCES:
        return mean_text(difference.get(column.key), column.scale, column.digits, "+")
    return mean_text(row.get(column.key), column.scale, column.digits)
