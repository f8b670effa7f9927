"""Evaluates the ensemble and every completed student, side by side."""

from edp import disagreements, results, workdir
from edp.experiment import Experiment
from launch import app


def evaluate(experiment: Experiment) -> None:
    """Writes `predictions/`, `results.json`, `analysis.json` and `gallery.npz`."""
    rows = results.collect_rows(experiment)
    workdir.write_json(experiment.workdir / "results.json", rows)
    disagreements.write_analysis(experiment)


if __name__ == "__main__":
    app.main(evaluate)
