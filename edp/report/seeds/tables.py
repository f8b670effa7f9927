"""Tables and figures of a summary over seeds."""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edp.report.page import measures, ranking
from edp.report.page.markup import escape_markdown
from edp.report.page.table import BOLD, MODEL, Column, markdown_table, plain_table
from edp.report.rows import CLEAN_INPUTS, NO_GAP, Row, inputs_name
from edp.report.seeds import comparison_tables, reference_tables
from edp.report.seeds.number_format import DASH, mean_text
from edp.runtime.storage import write_json, write_text

_RESULTS = (
    MODEL,
    Column("accuracy", "acc %", "acc %", 100, 2, 1),
    Column("nll", "NLL", "NLL", 1, 4, -1),
    Column("cnll", "cNLL", "cNLL", 1, 4, -1),
    Column("ece", "ECE %", "ECE %", 100, 2, -1),
    Column("cece", "cECE %", "cECE %", 100, 2, -1),
    Column("brier", "Brier", "Brier", 1, 4, -1),
    Column("aurc", "AURC %", "AURC %", 100, 2, -1),
    Column("validation_cnll", "validation cNLL", "val. cNLL", 1, 4, -1),
    Column("dee", "DEE", "DEE", 1, 2, 1),
    Column("gap_closed_of_means", "gap closed (published) %", "gap %", 100, 1, 1),
    Column("gap_closed_best_of_means", "gap closed (best pool) %", "", 100, 1, 1),
    Column("best_cnll", "cNLL (best pool)", "", 1, 4, -1),
    Column("dee_best", "DEE (best pool)", "", 1, 2, 1),
    Column("gap_closed", "mean of gaps %", "gaps %", 100, 1, 1),
    Column("gap_closed_prefix", "by first members %", "first %", 100, 1, 1),
    Column("train_accuracy", "training acc %", "train %", 100, 2),
    Column("train_seconds", "training s", "s", 1, 0),
)
_ON_TERMINAL = ("model", "accuracy", "cnll", "ece", "dee", "gap_closed_of_means")
_DIVERSITY = (
    Column("inputs", "inputs", "inputs"),
    Column("pairwise_kl", "pairwise KL", "KL", 1, 4),
    Column("disagreement_rate", "disagreement %", "disagree", 100, 2),
    Column("variance", "variance, 1e-3", "variance", 1000, 3),
    Column("error", "mean member error %", "error", 100, 2),
    Column("distance", "distance to the data", "distance", 1, 3),
)
_MATCHES = {
    "match_kl": "KL(teachers ‖ student)",
    "tempered_match_kl": "the same at the temperature of distillation",
}
_LEGEND = (
    "Mean ± standard error over seeds (n − 1). DE-m is the mean over the ensembles of "
    "m of the members. cNLL, cECE: after temperature scaling on the validation set. "
    "DEE: the size of the ensemble with the same cNLL; 0 is worse than one network; "
    "the whole ensemble is the maximum (a larger one is a --reference). "
    "Gap closed: the fraction of the gap between DE-1 and the whole ensemble, computed "
    "from the mean cNLLs; mean of gaps: the mean of this fraction over seeds, which is "
    "sensitive to a small gap in one seed; by first members: with the first member as "
    "DE-1; no gap if the whole ensemble is not clearly better. Published: the ensemble "
    "is the mean of the members' probabilities; best pool: it is pooled as is best on "
    "the validation images. Training accuracy: of "
    f"single members, on training images. {BOLD}"
)
_LEGEND_OF_DIVERSITY = (
    "Diversity of the teachers on clean inputs and on training inputs perturbed as for "
    "each student (once if several share a perturbation), with its step size. Mean ± "
    "standard error over seeds. In the figure, dashed: the level on test inputs. "
    "Distance: from an input to the nearest of at most 500 training images, in units "
    "of the mean distance of such an image to the nearest other one."
)
_LEGEND_OF_DISTANCE = (
    "The teachers' disagreement on perturbed training inputs against their distance to "
    "the data; a line joins the step sizes of one perturbation. Hollow dots: the "
    "members are wrong more often than on test inputs, so the effect is lost."
)
_LEGEND_OF_MATCHES = (
    "KL(teachers ‖ student) in nats on training inputs, on training inputs perturbed "
    "as in distillation, and on test inputs. A student close to its teachers on "
    "training inputs but far on test inputs learned a match that does not generalise; "
    "a student far from them on perturbed inputs did not fit the distillation targets."
)


def write_summary(summary: Mapping[str, Any], directory: pathlib.Path) -> list[str]:
    """Writes `summary.json`, `summary.md` and its figures.

    Args:
      summary: the value of `edp.report.seeds.summary.summarize_runs`.
      directory: created if missing.

    Returns:
      The names of the files written.
    """
    # Only the figures need Matplotlib.
    from edp.report.figures import seed_figures
    from edp.report.figures.distance import by_distance
    from edp.report.figures.svg import standalone
    from edp.report.page import pareto

    svgs = {
        "cnll": seed_figures.cnll(summary["models"]),
        "pareto": pareto.pareto_svg(summary["models"]),
        "argument": seed_figures.argument(summary["diversity"]),
        "distance": by_distance(summary["diversity"]),
    }
    files = {f"{name}.svg": svg for name, svg in svgs.items() if svg}
    # First, as `outputs.check_out` knows an interrupted summary by it.
    write_json(directory / "summary.json", summary)
    for name, svg in files.items():
        write_text(directory / name, standalone(svg))
    write_text(directory / "summary.md", format_markdown(summary, list(files)))
    return [*files, "summary.json", "summary.md"]


def format_terminal(summary: Mapping[str, Any], width: int = 100) -> str:
    """Formats the main columns as aligned text."""
    columns = [column for column in _RESULTS if column.key in _ON_TERMINAL]
    cells = [[_text(c, row) for c in columns] for row in _models(summary)]
    return plain_table(columns, cells, width)


def format_markdown(summary: Mapping[str, Any], figures: Sequence[str] = ()) -> str:
    """Formats all tables in Markdown, with links to these figures.

    Leaves out tables without values.
    """
    runs = ", ".join(f"{run['name']} (seed {run['seed']})" for run in summary["runs"])
    seeds = len(summary["runs"])
    lines = [f"# Summary over {seeds} seed{'s' if seeds > 1 else ''}", ""]
    lines += [f"- {escape_markdown(f'Runs: {runs}')}"]
    lines += [f"- {escape_markdown(note)}" for note in summary["notes"]]
    lines += ["", "## Results", "", _table(_RESULTS, _models(summary)), "", _LEGEND]
    if "cnll.svg" in figures:
        lines += ["", "![cNLL of ensembles and students](cnll.svg)"]
    lines += _ranking(summary, "pareto.svg" in figures)
    lines += comparison_tables.sections(summary)
    lines += reference_tables.sections(summary["references"])
    lines += ["", "## Diversity of the teachers", ""]
    if rows := [{**row, "inputs": inputs_name(row)} for row in summary["diversity"]]:
        lines += [_table(_DIVERSITY, rows), "", _LEGEND_OF_DIVERSITY]
    else:
        lines += ["No run has an analysis.json with diversity."]
    if "argument.svg" in figures:
        lines += ["", "![Diversity of the teachers](argument.svg)"]
    if "distance.svg" in figures:
        lines += ["", "![Disagreement by distance to the data](distance.svg)"]
        lines += ["", _LEGEND_OF_DISTANCE]
    lines += _matches(summary["students"])
    lines += _measures(summary["measures"], summary["models"])
    lines += _out_of_distribution(summary["ood"])
    lines += _corruptions(summary["corruptions"])
    lines += comparison_tables.corrupted_sections(summary)
    return "\n".join([*lines, ""])


def _models(summary: Mapping[str, Any]) -> Sequence[Row]:
    """Returns the models, which say so if there is no gap to close."""
    models = summary["models"]
    if sum(m.get("kind") == "ensemble" for m in models) < 2 or any(
        "gap_closed_of_means" in model for model in models
    ):
        return models
    return [
        {**model, "gap_closed_of_means": NO_GAP} if "cnll" in model else model
        for model in models
    ]


def _ranking(summary: Mapping[str, Any], is_drawn: bool) -> list[str]:
    ranked = ranking.rank(_models(summary), summary["ood"])
    if not any("rank" in row for row in ranked):
        return []
    table = _table(ranking.columns(ranked), ranked)
    drawn = [
        "",
        "![Calibrated NLL against the cost of a prediction](pareto.svg)",
    ] * is_drawn
    return ["", "## Ranking", "", table, "", ranking.LEGEND, *drawn]


def _matches(rows: Sequence[Row]) -> list[str]:
    lines = []
    alike = all(row.get("match_kl") == row.get("tempered_match_kl") for row in rows)
    for key, title in _MATCHES.items():
        if any(key in row for row in rows) and not (alike and key != "match_kl"):
            table = _pivot(rows, "inputs", ("train", "perturbed", "test"), key, 1, 4)
            lines += ["", f"### {title}", "", table]
    if not lines:
        return []
    return ["", "## Students and their teachers", *lines, "", _LEGEND_OF_MATCHES]


def _out_of_distribution(rows: Sequence[Row]) -> list[str]:
    lines = []
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        scores = list(dict.fromkeys(row["score"] for row in of_set))
        table = _pivot(of_set, "score", scores, "auroc", 100, 2)
        lines += ["", f"### {escape_markdown(str(name))}", "", table]
    if not lines:
        return []
    legend = (
        "AUROC in % of separating test images from those of the set by each "
        "uncertainty score; 50 is chance. Mean ± standard error over seeds."
    )
    return ["", "## Out of distribution", *lines, "", legend]


def _corruptions(rows: Sequence[Row]) -> list[str]:
    # The part of the name before 'mean': '' or a folder, such as 'CIFAR-10-C/'.
    names = dict.fromkeys(row["corruption"] for row in rows)
    folders = [n.removesuffix("mean") for n in names if n.endswith("mean")]
    if not folders:
        return []
    lines = ["", "## Common corruptions"]
    for folder, (key, title, scale, digits) in itertools.product(
        folders,
        (("accuracy", "Accuracy in %", 100, 2), ("cnll", "cNLL", 1, 4)),
    ):
        shown = [row for row in rows if row["corruption"] in ("none", f"{folder}mean")]
        severities = sorted({row["severity"] for row in shown})
        table = _pivot(shown, "severity", severities, key, scale, digits)
        where = f", {escape_markdown(folder.removesuffix('/'))}" if folder else ""
        lines += ["", f"### {title}{where}", "", table]
    legend = (
        "By severity, mean over the corruptions; 0 is the clean images. The "
        "temperature is fitted on clean validation images. Mean ± standard error over "
        "seeds."
    )
    return [*lines, "", legend]


def _measures(rows: Sequence[Row], models: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    kinds = {model["model"]: model.get("kind") for model in models}
    rows = [{**row, "kind": kinds.get(row["model"])} for row in rows]
    table, legend = _table(measures.MEASURES, rows), measures.LEGEND
    return ["", "## Further measures", "", table, "", f"{legend} {BOLD}"]


def _pivot(
    rows: Sequence[Row], by: str, values: Iterable, key: str, scale: float, digits: int
) -> str:
    """Formats a table with a row for each model and a column for each value."""
    values = [value for value in values if any(row[by] == value for row in rows)]
    titles = [escape_markdown(CLEAN_INPUTS.get(v, f"{v}")) for v in values]
    columns = [MODEL, *(Column(key, title, title, scale, digits) for title in titles)]
    cells = []
    for model in dict.fromkeys(row["model"] for row in rows):
        found = {row[by]: row for row in rows if row["model"] == model}
        texts = (mean_text(found.get(v, {}).get(key), scale, digits) for v in values)
        cells.append([escape_markdown(model), *texts])
    return markdown_table(columns, cells)


def _table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Formats the columns that have values; the best student is bold.

    None is bold where several students have the best mean, by the digits shown.
    """
    columns = [c for c in columns if any(c.key in row for row in rows)]
    cells = [[escape_markdown(_text(c, row)) for c in columns] for row in rows]
    students = [i for i, row in enumerate(rows) if row.get("kind") == "student"]
    for j, column in enumerate(columns):
        texts = {i: _text(column, rows[i]) for i in students}
        if not column.better or not {*texts.values()} - {DASH, NO_GAP}:
            continue
        means = {
            i: column.better * float(text.partition(" ")[0])
            for i, text in texts.items()
            if text not in (DASH, NO_GAP)
        }
        best = [i for i, mean in means.items() if mean == max(means.values())]
        if len(means) > 1 and len(best) == 1:
            cells[best[0]][j] = f"**{cells[best[0]][j]}**"
    return markdown_table(columns, cells)


def _text(column: Column, row: Row) -> str:
    value = row.get(column.key)
    if column.scale is None or value == NO_GAP:
        return column.text(row)
    return mean_text(value, column.scale, column.digits)
