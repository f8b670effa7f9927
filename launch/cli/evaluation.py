"""Evaluation stage of a run."""

from edp.evaluation import analysis, corruptions, costs, measures, ood, results
from edp.evaluation.predictor import Predictors
from edp.experiment.create import Experiment, record_run
from edp.runtime import lock, storage


def prepare_evaluation(experiment: Experiment) -> None:
    """Does in advance what `evaluate` and the report need no trained networks for."""
    costs.count_ahead(experiment)
    import edp.report.page.compose  # noqa: F401  (slow to import)


def evaluate(experiment: Experiment) -> None:
    """Writes `predictions/`, `results.json`, `measures.json`, `analysis.json` and more.

    That is `gallery.npz`, and `ood.json`, `corruptions.json` and `corruptions/` if the
    settings ask for them. Each network is loaded and compiled once.
    """
    workdir = experiment.run.workdir
    with lock.held(workdir):
        predictors = Predictors(experiment)
        rows = results.collect_rows(experiment, predictors)
        record_run(experiment)
        measured = measures.write_measures(experiment, predictors)
        measures.add_set_scores(rows, measured)
        storage.write_json(workdir / "results.json", rows)
        analysis.write_analysis(experiment, predictors)
        ood.write_detection(experiment, predictors)
        corruptions.write_robustness(experiment, predictors)
