"""Other ensembles beside the models of a summary, such as larger ones.

A student is fairly compared with an ensemble only if both were trained with the same
augmentation, and its deep-ensemble equivalent ends at the size of the ensemble.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edp import metrics
from edp.errors import InputError
from edp.evaluation import scoring
from edp.report.rows import Row, ensemble_rows, student_rows
from edp.report.seeds import comparisons
from edp.report.seeds import runs as finished
from edp.report.seeds.aggregate import over_seeds, quantity
from edp.report.seeds.runs import Run

# Quantity of the ensembles -> suffix of the names of what is measured by it.
_BASES = {"cnll": "", "best_cnll": "_best"}


def read_references(
    texts: Sequence[str], runs: Sequence[Run]
) -> dict[str, dict[int, Run]]:
    """Reads the reference ensembles of a summary.

    Args:
      texts: of the form NAME=WORKDIR,WORKDIR,...
      runs: of the summary.

    Returns:
      By name, the run of each seed of `runs`.

    Raises:
      InputError: if a text has another form or a name comes twice, if a seed of `runs`
        is missing, if a run has no ensemble, or if its test images have other labels.
    """
    found: dict[str, dict[int, Run]] = {}
    for text in texts:
        name, _, workdirs = text.partition("=")
        if not name or not workdirs or name in found:
            raise InputError(
                f"reference={text!r}; accepted: NAME=WORKDIR,WORKDIR,... with each "
                "name once"
            )
        of = {run.seed: run for run in finished.read_runs(workdirs.split(","))}
        seeds = [run.seed for run in runs]
        if missing := [str(seed) for seed in seeds if seed not in of]:
            raise InputError(
                f"reference={text!r} lacks seed {', '.join(missing)}; accepted: runs "
                "with the seeds of those that are summarised"
            )
        found[name] = {seed: of[seed] for seed in seeds}
        for run in runs:
            _check(of[run.seed], run)
    return found


def _check(reference: Run, run: Run) -> None:
    """Checks that a reference has ensembles and the test labels of a run."""
    if not ensemble_rows(reference.rows):
        raise InputError(f"{reference.path} has no ensemble; accepted: runs with one")
    if not np.array_equal(reference.test_labels(), run.test_labels()):
        raise InputError(
            f"{reference.path} and {run.path} have different test labels; accepted: "
            "a reference with the same test images"
        )


def compare_with(reference: Mapping[int, Run], runs: Sequence[Run]) -> dict[str, Any]:
    """Places the models of a summary among the ensembles of a reference.

    Args:
      reference: by seed.
      runs: of the summary.

    Returns:
      `size`: m of the gap from DE-1 to DE-m, the size of the ensemble of `runs`, or of
      the reference if that is smaller; `largest`: that of the reference,
      in the seed where it is smallest; larger ensembles of other seeds are left out;
      `ensembles`: DE-1, DE-2, ... of the reference over seeds; `models`: those of
      `runs`, with `cnll`, the quantities `dee` and `dee_best`, and `gap_closed` and
      `gap_closed_best` by mean cNLLs ("best" is beside the ensembles pooled in their
      best way); `students`: the same of the reference's own students, which are
      distilled from its members; `gap`: `comparisons.ensemble_gap` of the reference
      and `size`; no model has a `gap_closed` if its interval does not lie below 0.
      Absent: quantities that the rows lack, gaps that are none, and `gap` where the
      teachers' predictions are missing.

    Raises:
      InputError: if predictions of the reference are damaged, or not those of its rows.
    """
    found = {s: ensemble_rows(run.rows) for s, run in reference.items()}
    own = max(len(ensemble_rows(run.rows)) for run in runs)
    largest = min(map(len, found.values()))
    size = min(own, largest)
    ensembles = {s: rows[:largest] for s, rows in found.items()}
    gap = comparisons.ensemble_gap(list(reference.values()), size) if size > 1 else None
    is_gap = gap is None or gap["interval"][1] < 0

    def placed(by_seed: Mapping[int, Sequence[Row]]) -> list[Row]:
        models = []
        for model in over_seeds(by_seed, ("model",), ("accuracy", "cnll")):
            if "cnll" not in model:
                continue
            cnlls = {int(seed): cnll for seed, cnll in model["cnll"]["by_seed"].items()}
            standing = _standing(cnlls, ensembles, size)
            if not is_gap:
                standing.pop("gap_closed", None)
            models.append(model | standing)
        return models

    fields = ("accuracy", *_BASES)
    return {
        "size": size,
        "largest": largest,
        **({"gap": gap} if gap else {}),
        "ensembles": over_seeds(ensembles, ("model",), fields),
        "models": placed({run.seed: run.rows for run in runs}),
        "students": placed({s: student_rows(run.rows) for s, run in reference.items()}),
    }


def _standing(
    cnlls: Mapping[int, float], ensembles: Mapping[int, Sequence[Row]], size: int
) -> Row:
    """Computes the standing of a model, by the calibrated NLL of each seed."""
    standing: dict[str, Any] = {}
    for basis, suffix in _BASES.items():
        of = {seed: [row.get(basis) for row in ensembles[seed]] for seed in cnlls}
        if any(None in values for values in of.values()):
            continue
        standing[f"dee{suffix}"] = quantity(
            {s: metrics.deep_ensemble_equivalent(cnlls[s], of[s]) for s in cnlls}
        )
        first, last = (np.mean([of[s][i] for s in cnlls]) for i in (0, size - 1))
        if first - last > scoring.MIN_GAP:
            mean = np.mean([*cnlls.values()])
            standing[f"gap_closed{suffix}"] = float((first - mean) / (first - last))
    return standing
