"""Summary of one configuration over seeds: means, errors and differences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edp.errors import InputError
from edp.evaluation import scoring
from edp.report.seeds import comparisons
from edp.report.seeds import references as other_ensembles
from edp.report.seeds.aggregate import Row, is_number, over_seeds
from edp.report.seeds.runs import Run, note_other_images
from edp.report.seeds.shared_teachers import share_teachers

_RESULTS = (
    *("accuracy", "nll", "cnll", "ece", "cece", "brier", "aurc"),
    *("dee", "gap_closed", "gap_closed_prefix"),
    *("best_cnll", "dee_best", "gap_closed_best"),
    *("train_accuracy", "logged_accuracy", "train_seconds"),
)
# Quantities that rows lack without a gap, or in results of earlier versions.
_LACKING = (
    *("gap_closed", "gap_closed_prefix"),
    *("best_cnll", "dee_best", "gap_closed_best"),
)
_FACTS = (
    *("model", "kind", "student", "perturbation", "num_members", "num_params"),
    *("inference_cost", "inference_flops", "train_flops"),
)
DEFAULT_BASELINE = "single_none"


def summarize_runs(
    runs: Sequence[Run],
    baselines: Sequence[str] | None = None,
    references: Sequence[str] = (),
) -> Row:
    """Summarises runs over their seeds.

    Args:
      runs: runs of `runs.read_runs`.
      baselines: names of the students that the others are compared with, in addition
        to the best plain one; None for `single_none`, if it exists.
      references: other ensembles, as `references.read_references` takes them.

    Returns:
      Values that JSON can represent. A quantity over seeds is {"mean", "se" (absent
      for one seed), "by_seed"}; the standard error uses n − 1.

      * `runs`: [{"name", "seed"}]; `notes`: sentences on the runs.
      * `models`: DE-1, ..., DE-M and students, with facts, `seeds` and quantities;
        `gap_closed_of_means` (a number) is the gap closed by the mean cNLLs, and
        `gap_closed_best_of_means` that beside the ensembles at their best;
        `train_accuracy` is that of single members in `analysis.json`,
        `logged_accuracy` the last one in `metrics.jsonl`, measured during training.
      * `gap`: the cNLL of DE-M minus that of DE-1, with the `interval` of the bootstrap
        over test images; absent without the teachers' predictions. If the interval
        does not lie below 0, no model has a gap closed on this basis.
      * `best_plain`: the student distilled without a perturbation with the lowest
        mean cNLL on the validation images, {"model", "validation_cnll"}; absent
        without such a student.
      * `comparisons`: each student minus each baseline, {"baseline", "model",
        "seeds", "cnll", "accuracy"}; both quantities have `p` of a paired t-test over
        seeds (absent if undefined) and `interval` of the paired bootstrap over test
        images.
      * `corrupted_comparisons`: the same in the mean over the corruptions and
        severities of a set of corrupted images, with its name, as `corruption`; empty
        without these images.
      * `references`: by name, what `references.compare_with` returns.
      * `diversity`, `students`, `ood`, `corruptions`, `measures`: quantities of the
        rows of those names; empty if no run has them.

    Raises:
      InputError: if a baseline is no student of these runs, test images differ
        between runs, or predictions are missing, damaged or not those of the rows.
    """
    names = list(dict.fromkeys(n for run in runs for n in run.student_names))
    if baselines is None:
        baselines = [DEFAULT_BASELINE] if DEFAULT_BASELINE in names else []
    if unknown := [name for name in baselines if name not in names]:
        raise InputError(
            f"baseline={','.join(unknown)} is no student of these runs; accepted: "
            f"{', '.join(names) or 'none, there are no students'}"
        )
    # Before the comparisons, which take longer.
    others = other_ensembles.read_references(references, runs)
    facts: dict[str, Row] = {}
    for row in (row for run in reversed(runs) for row in run.rows):
        facts[row["model"]] = facts.get(row["model"], {}) | row
    models = [
        {k: facts[model["model"]][k] for k in _FACTS if k in facts[model["model"]]}
        | model
        for model in over_seeds(
            {r.seed: _rows_of(r) for r in runs}, ("model",), _RESULTS
        )
    ]
    scored = comparisons.score_runs(runs, names)
    models = [
        model
        | _gap_of_means("gap_closed_of_means", model, models, "cnll")
        | _gap_of_means("gap_closed_best_of_means", model, models, "best_cnll")
        | _validation_cnll(model, scored)
        for model in models
    ]
    gap = comparisons.ensemble_gap(runs)
    if gap and gap["interval"][1] >= 0:
        shares = ("gap_closed_of_means", "gap_closed", "gap_closed_prefix")
        models = [{k: v for k, v in m.items() if k not in shares} for m in models]
    best = comparisons.best_plain(scored, [n for n in names if _is_plain(facts[n])])
    chosen = dict.fromkeys([*baselines, *([best["model"]] if best else [])])
    result = {
        "runs": [{"name": run.name, "seed": run.seed} for run in runs],
        "notes": _notes(runs, models, others),
        "models": models,
        **({"gap": gap} if gap else {}),
        **({"best_plain": best} if best else {}),
        "comparisons": comparisons.compare_students(scored, names, list(chosen)),
        "corrupted_comparisons": comparisons.compare_corrupted(
            runs, names, list(chosen)
        ),
        "references": {
            name: other_ensembles.compare_with(of, runs) for name, of in others.items()
        },
    }
    for name, keys in (
        ("diversity", ("inputs", "perturbation", "step_size")),
        ("students", ("model", "inputs", "temperature")),
        ("ood", ("model", "set", "score")),
        ("corruptions", ("model", "corruption", "severity")),
        ("measures", ("model",)),
    ):
        result[name] = over_seeds({r.seed: getattr(r, name) for r in runs}, keys)
    return result


def _rows_of(run: Run) -> list[Row]:
    """Returns the rows of a run, with the accuracy on training images if known."""
    errors = {
        row.get("model", "DE-1"): row["error"]
        for row in (*run.diversity, *run.students)
        if row.get("inputs") == "train" and is_number(row, "error")
    }
    rows = []
    for row in run.rows:
        name = row["model"]
        known = {"train_accuracy": 1 - errors[name]} if name in errors else {}
        is_student = row.get("kind") == "student"
        if is_student or name == "DE-1":
            epoch = run.last_epoch(f"students/{name}" if is_student else "teachers")
            if is_number(epoch, "accuracy"):
                known["logged_accuracy"] = epoch["accuracy"]
        rows.append({**row, **known})
    return rows


def _is_plain(row: Mapping[str, Any]) -> bool:
    return row.get("perturbation") in (None, "none")


def _gap_of_means(
    name: str, model: Row, models: Sequence[Row], basis: str
) -> dict[str, float]:
    """Returns the gap closed by the mean cNLL, over the seeds of the model.

    Args:
      name: of the result.
      model: whose cNLL it is.
      models: of which the ensembles have the ends of the gap.
      basis: the quantity of the ensembles, such as "best_cnll".

    Returns:
      {} if the whole ensemble is not better than one network.
    """
    ensembles = [m for m in models if m.get("kind") == "ensemble" and basis in m]
    if not ensembles or "cnll" not in model:
        return {}
    ensembles.sort(key=lambda m: m["num_members"])
    seeds = model["cnll"]["by_seed"]
    ends = [
        [of[basis]["by_seed"].get(seed, math.nan) for seed in seeds]
        for of in (ensembles[0], ensembles[-1])
    ]
    first, last = np.mean(ends, axis=1)
    if not first - last > scoring.MIN_GAP:
        return {}
    share = (first - model["cnll"]["mean"]) / (first - last)
    return {name: float(share)}


def _validation_cnll(model: Row, scored: Mapping[str, Mapping[int, Any]]) -> Row:
    """Returns the validation cNLL of a student, which `results.json` lacks."""
    of = scored.get(model["model"])
    return {"validation_cnll": comparisons.validation_cnll(of)} if of else {}


def _of_fewer_seeds(models: Sequence[Row]) -> list[str]:
    """Returns sentences on quantities that some runs of their models lack.

    As the gap closed where DE-M is not better than DE-1: its mean over the other seeds
    is too favourable.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for model in models:
        for name in _LACKING:
            seeds = model.get(name, {"by_seed": ()})["by_seed"]
            if 0 < len(seeds) < len(model["seeds"]):
                found.setdefault((name, ", ".join(seeds)), []).append(model["model"])
    return [
        f"{name} of {', '.join(of)} is only the mean over the seeds {seeds}, as other "
        "runs have none."
        for (name, seeds), of in found.items()
    ]


def _notes(
    runs: Sequence[Run],
    models: Sequence[Row],
    references: Mapping[str, Mapping[int, Run]],
) -> list[str]:
    """Returns sentences on limitations of the tables."""
    notes = []
    for model in models:
        if len(model["seeds"]) < len(runs):
            seeds = ", ".join(map(str, model["seeds"]))
            notes.append(
                f"{model['model']} exists only in the runs with seeds {seeds}."
            )
    notes += _of_fewer_seeds(models)
    of_references = (run for of in references.values() for run in of.values())
    notes += note_other_images([*runs, *of_references])
    if share_teachers(runs):
        notes.append(
            "Some of these runs share their teachers, so the errors exclude the "
            "variation between teachers."
        )
    without = [run.name for run in runs if not (run.path / "analysis.json").exists()]
    if without:
        notes.append(f"No analysis.json in {', '.join(without)}.")
    for name in ("ood", "corruptions", "measures"):
        lacking = [run.name for run in runs if not getattr(run, name)]
        if 0 < len(lacking) < len(runs):
            notes.append(
                f"No rows of {name}.json in {', '.join(lacking)}, so its means are "
                "over fewer seeds."
            )
    notes += dict.fromkeys(note for run in runs for note in run.notes)
    bound = {
        row["model"]
        for run in runs
        for row in run.rows
        if "temperature_at_bound" in row
    }
    if bound:
        notes.append(
            "In some run the fitted temperature is at the bound of its search range, "
            "so calibrated values are unreliable, for "
            f"{', '.join(m['model'] for m in models if m['model'] in bound)}."
        )
    return notes
