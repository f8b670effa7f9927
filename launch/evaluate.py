"""Evaluates the ensemble and every complete student, or predictions made elsewhere.

    python -m launch.evaluate --config=configs/digits.py --workdir=runs/digits
    python -m launch.evaluate --predictions=predictions.npz --workdir=runs/mine

The second form needs no configuration, no networks and no images: it reads the
members' probabilities or logits and the labels, and writes the table, the figures and
the report to a new workdir.
"""

import pathlib

from absl import flags

from edp.errors import InputError
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
        workdir is that of a run or holds the predictions themselves.
    """
    source = pathlib.Path(_PREDICTIONS.value).expanduser()
    storage.check_writable(workdir)
    if (workdir / "config.json").exists():
        raise InputError(
            f"workdir={str(workdir)!r} is that of a run; accepted: a new directory"
        )
    copies = workdir / "predictions"
    if source.absolute() == storage.absolute(copies):
        raise InputError(
            f"predictions={str(source)!r} is in the workdir; accepted: another workdir"
        )
    found = given.read_given(source)
    rows = given.score_given(found)
    with lock.held(workdir):
        for name, of in found.items():
            predictions.save_predictions(copies / f"{name}.npz", of.predictions)
        storage.write_json(workdir / "results.json", rows)
    write_report(workdir)


if __name__ == "__main__":
    app.main(evaluate, without_config=(_PREDICTIONS, evaluate_given))
