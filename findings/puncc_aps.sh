#!/usr/bin/env bash
# puncc's APS and RAPS sets have no more classes than the batch has examples.
#
# Library:   puncc 0.9.3, with numpy 1.26.4 and scikit-learn 1.8.0; Linux.
# Expected:  the prediction set of an example depends on its own probabilities only, and
#            contains its label with a probability of 1 - alpha or more (Romano et al. 2020,
#            arXiv 2006.02544; Angelopoulos et al. 2021, arXiv 2009.14193).
# Happens:   deel.puncc.api.prediction_sets.raps_set limits the size of a set to the number
#            of examples that are predicted together, where the number of classes is meant.
#            Two images at a time have two classes or fewer, and the last, smaller batch of
#            a test set has smaller sets. Coverage is lost without a warning (one example at a
#            time raises a TypeError). LAC is not affected.
# Way round: predict in batches of at least as many examples as there are classes.
# Seen (1,000 calibration and 2,000 test examples, 10 classes, alpha = 0.1, rand=False):
#   APS, together     covers 95.0 %, 5.95 classes
#   APS, 8 at a time  covers 95.0 %, 5.95 classes
#   APS, 4 at a time  covers 84.9 %, 3.94 classes
#   APS, 2 at a time  covers 64.5 %, 2.00 classes
#   LAC, together     covers 91.8 %, 4.83 classes
#   LAC, 2 at a time  covers 91.8 %, 4.83 classes
#
# Usage: [PYTHON=python3.12] bash findings/puncc_aps.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  puncc==0.9.3 numpy==1.26.4 scikit-learn==1.8.0 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import sys
import warnings

import numpy as np
from deel.puncc.api.prediction import BasePredictor
from deel.puncc.classification import APS, LAC

CALIBRATION, TEST, CLASSES, ALPHA = 1000, 2000, 10, 0.1


class Identity:
    """A network whose probabilities are given as its inputs."""

    def predict(self, probabilities):
        return probabilities


rng = np.random.default_rng(0)
probabilities = np.exp(1.5 * rng.normal(size=(CALIBRATION + TEST, CLASSES)))
probabilities /= probabilities.sum(1, keepdims=True)
labels = (probabilities.cumsum(1) > rng.random((len(probabilities), 1))).argmax(1)
test, truth = probabilities[CALIBRATION:], labels[CALIBRATION:]
predictor = BasePredictor(Identity(), is_trained=True)
seen, sets_of = {}, {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name, method, batches in (
        ("APS", APS(predictor, train=False, rand=False), (TEST, 8, 4, 2)),
        ("LAC", LAC(predictor, train=False), (TEST, 2)),
    ):
        method.fit(
            X_calib=probabilities[:CALIBRATION], y_calib=labels[:CALIBRATION]
        )
        for batch in batches:
            sets = []
            for start in range(0, TEST, batch):
                sets += method.predict(test[start : start + batch], alpha=ALPHA)[1]
            covered = np.mean([y in chosen for y, chosen in zip(truth, sets)])
            size = np.mean([len(chosen) for chosen in sets])
            seen[name, batch] = covered, size
            sets_of[name, batch] = [sorted(map(int, chosen)) for chosen in sets]
            how = "together" if batch == TEST else f"{batch} at a time"
            print(
                f"{name + ', ' + how:17} covers {100 * covered:.1f} %, {size:.2f} classes"
            )
truncated = all(seen["APS", batch][1] <= batch for batch in (4, 2))
lost = seen["APS", 2][0] < 0.7 and seen["APS", TEST][0] > 0.88
lac = sets_of["LAC", TEST] == sets_of["LAC", 2]
sys.exit(0 if truncated and lost and lac and not caught else 1)
EOF
