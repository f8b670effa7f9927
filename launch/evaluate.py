"""Evaluates the ensemble and every complete student, or predictions made elsewhere.

    python -m launch.evaluate --config=configs/digits.py --workdir=runs/digits
    python -m launch.evaluate --predictions=predictions.npz --workdir=runs/mine

The second form needs no configuration, no networks and no images: it reads the
members' probabilities or logits and the labels, and writes the table, the figures and
the report to a new workdir.
"""

import pathlib

from absl import flags

from edp.evaluation import given, predictions
from edp.runtime import lock, storage

from .cli import app
from .cli.evaluation import evaluate
from .report import write_report

_PREDICTIONS = flags.DEFINE_string(
    "predictions",
    None,
    "An .npz, or a directory of .npy or .npz files, with validation_probs (or "
    "validation_logits) [M, N, K], validation_labels [N], and the same for test; "
    "NAME/test_probs is that of a student. Instead of --config.",
)


def evaluate_given(workdir: storage.Path) -> None:
    """Writes `predictions/`, `results.json` and the report of given predictions.

    Raises:
      InputError: if the predictions are not as `given.read_given` describes, or the
        workdir is refused by `given.check_workdir`.
    """
    source = pathlib.Path(_PREDICTIONS.value).expanduser()
    storage.check_writable(workdir)
    given.check_workdir(workdir, source)
    found = given.read_given(source)
    rows = given.score_given(found)
    with lock.held(workdir):
        # First, as `check_workdir` knows an interrupted evaluation by it.
        storage.write_json(workdir / "results.json", rows)
        for name, of in found.items():
            path = workdir / "predictions" / f"{name}.npz"
            predictions.save_predictions(path, of.predictions)
    write_report(workdir)


if __name__ == "__main__":
    app.main(evaluate, without_config=(_PREDICTIONS, evaluate_given))
