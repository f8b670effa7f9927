"""Evaluates the ensemble and every completed student, side by side."""

from edp import detection, disagreements, lock, results, robustness, workdir
from edp.experiment import Experiment, record

from . import app


def evaluate(experiment: Experiment) -> None:
    """Writes `predictions/`, `results.json`, `analysis.json` and `gallery.npz`.

    And where the settings ask for them, `ood.json` and `corruptions.json`.
    """
    with lock.held(experiment.workdir):
        rows = results.collect_rows(experiment)
        record(experiment)
        workdir.write_json(experiment.workdir / "results.json", rows)
        disagreements.write_analysis(experiment)
        detection.write_detection(experiment)
        robustness.write_robustness(experiment)


if __name__ == "__main__":
    app.main(evaluate)
