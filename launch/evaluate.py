"""Evaluates the ensemble and every complete student."""

from edp.evaluation import analysis, corruptions, ood, results
from edp.experiment.create import Experiment, record_run
from edp.runtime import lock, storage

from .cli import app


def evaluate(experiment: Experiment) -> None:
    """Writes `predictions/`, `results.json`, `analysis.json` and `gallery.npz`.

    Also writes `ood.json` and `corruptions.json` if the settings ask for them.
    """
    with lock.held(experiment.workdir):
        rows = results.collect_rows(experiment)
        record_run(experiment)
        storage.write_json(experiment.workdir / "results.json", rows)
        analysis.write_analysis(experiment)
        ood.write_detection(experiment)
        corruptions.write_robustness(experiment)


if __name__ == "__main__":
    app.main(evaluate)
