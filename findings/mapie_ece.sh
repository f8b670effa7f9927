#!/usr/bin/env bash
# MAPIE's calibration errors use one bin fewer than asked for, bins that depend on the order
# of the data, and top labels that all weigh the same.
#
# Library:   mapie 1.6.0, with numpy 2.4.6, scipy 1.17.1 and scikit-learn 1.9.1; Linux.
# Expected:  expected_calibration_error(num_bins=n) is the error over n bins, whatever the
#            order of the examples; "array split" gives bins of about equal size. By Gupta and
#            Ramdas 2021 (arXiv 2107.08353), that of top labels is an expectation
#            over the examples, so a label weighs as often as it is predicted.
# Happens:   without an exception or a warning:
#            - "uniform", the default, takes n edges, which are n - 1 bins. With n = 2 there
#              is one: over- and underconfidence cancel each other.
#            - "array split" cuts the scores into groups without sorting them, and takes the
#              largest of each group as an edge. Of shuffled data all edges are near 1, so
#              that nearly all examples are in the first bin.
#            - top_label_ece is the plain mean over the labels: rare ones count as much as
#              frequent ones.
# Way round: num_bins=n + 1 for "uniform"; sort by the score before "array split"; weigh the
#            errors of the top labels by hand.
# Seen:
#   4 scores of 0.25 and 4 of 0.75, half right: 2 bins 0.000, num_bins=3 0.250, by hand 0.250
#   2,000 shuffled examples, "array split", 10 bins: 0.022, sorted 0.257, by hand 0.257
#   top label 0 predicted 900 times, error 0.0, and 1 100 times, error 0.5: 0.250, by hand 0.050
#
# Usage: [PYTHON=python3.12] bash findings/mapie_ece.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  mapie==1.6.0 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import sys
import warnings

import numpy as np
from mapie.metrics.calibration import expected_calibration_error, top_label_ece


def by_hand(correct, scores, bins):
    """Returns the calibration error over the index of each example's bin."""
    gaps = [abs(np.sum((correct - scores)[bins == index])) for index in np.unique(bins)]
    return sum(gaps) / len(scores)


caught = warnings.catch_warnings(record=True)
with caught as records:
    warnings.simplefilter("always")
    scores, correct = np.repeat([0.25, 0.75], 4), np.tile([0, 1], 4)
    two = expected_calibration_error(correct, scores, num_bins=2)
    three = expected_calibration_error(correct, scores, num_bins=3)
    right = by_hand(correct, scores, np.where(scores > 0.5, 1, 0))
    print(
        f"4 scores of 0.25 and 4 of 0.75, half right: 2 bins {two:.3f}, "
        f"num_bins=3 {three:.3f}, by hand {right:.3f}"
    )
    uniform = abs(two) < 1e-9 and abs(three - right) < 1e-9 and abs(right - 0.25) < 1e-9

    # The more confident, the less accurate: 1 at 0.5 and 0.5 at 1.
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.5, 1, 2000)
    correct = (rng.random(2000) < 1.5 - scores).astype(int)
    order = np.argsort(scores)
    settings = {"num_bins": 10, "split_strategy": "array split"}
    shuffled = expected_calibration_error(correct, scores, **settings)
    ordered = expected_calibration_error(correct[order], scores[order], **settings)
    tenth = np.empty(2000, int)
    tenth[order] = np.arange(2000) // 200
    right = by_hand(correct, scores, tenth)
    print(
        f'2,000 shuffled examples, "array split", 10 bins: {shuffled:.3f}, '
        f"sorted {ordered:.3f}, by hand {right:.3f}"
    )
    split = shuffled < 0.05 and right > 0.2 and abs(ordered - right) < 1e-9

    # Label 0: confidence 0.9, 810 of 900 right. Label 1: confidence 0.6, 10 of 100.
    scores = np.repeat([[0.9, 0.1], [0.4, 0.6]], [900, 100], axis=0)
    labels = np.repeat([0, 1, 1, 0], [810, 90, 10, 90])
    top = top_label_ece(labels, scores)
    right = (900 * 0.0 + 100 * 0.5) / 1000
    print(
        "top label 0 predicted 900 times, error 0.0, and 1 100 times, error 0.5: "
        f"{top:.3f}, by hand {right:.3f}"
    )
    weights = abs(top - 0.25) < 1e-9
sys.exit(0 if uniform and split and weights and not records else 1)
EOF
