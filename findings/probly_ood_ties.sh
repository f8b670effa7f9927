#!/usr/bin/env bash
# probly's OOD measures count tied scores as if the out-of-distribution examples came first.
#
# Library:   probly 0.9.1, with numpy 2.4.6 and scikit-learn 1.9.1; Python 3.13, Linux.
# Expected:  a tie counts one half in the AUROC, and a threshold takes in all examples of one
#            score, as in scikit-learn. Votes of M members have M values or fewer, and
#            the largest probability of sure networks is 1 in float32, so that ties abound.
# Happens:   the curves have a point after every example, also between equal scores, which
#            are taken in the reverse order of the data. The functions for OOD detection put
#            the in-distribution examples first, so ties count as told apart: scores that
#            are all the same give an AUROC of 1, an AUPR of 1 and an FPR95 of 0. In the
#            other order the AUROC is 0. There is no warning, and the documentation does not
#            speak of ties.
# Way round: scikit-learn's roc_auc_score, average_precision_score and roc_curve.
# Seen (1,000 examples of each kind; votes of 4 members, drawn alike for both kinds):
#   all scores 0: AUROC 1.000, by hand 0.500; AUPR 1.000, 0.500; FPR95 0.000, 1.000
#   votes:        AUROC 0.774, by hand 0.504; AUPR 0.855, 0.502; FPR95 0.673, 0.963
#   votes, out-of-distribution examples first: AUROC 0.233
#   no ties:      AUROC 0.756, by hand 0.756; AUPR 0.753, 0.753; FPR95 0.741, 0.741
#
# Usage: PYTHON=python3.13 bash findings/probly_ood_ties.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  probly==0.9.1 numpy==2.4.6 scikit-learn==1.9.1 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import sys
import warnings

import numpy as np
from probly.evaluation import ood
from probly.metrics import roc_auc_score
from sklearn import metrics

SIZE = 1000


def by_hand(inside, outside):
    """Returns AUROC, AUPR and FPR95 of scores that are high out of distribution."""
    wins = (outside[:, None] > inside).mean() + 0.5 * (outside[:, None] == inside).mean()
    precision, recalls, fpr95 = 0.0, [0.0], None
    for threshold in np.unique(np.concatenate([inside, outside]))[::-1]:
        found, false = (outside >= threshold).sum(), (inside >= threshold).sum()
        recalls.append(found / len(outside))
        precision += (recalls[-1] - recalls[-2]) * found / (found + false)
        if fpr95 is None and recalls[-1] >= 0.95:
            fpr95 = false / len(inside)
    labels = np.repeat([0, 1], [len(inside), len(outside)])
    scores = np.concatenate([inside, outside])
    assert np.isclose(wins, metrics.roc_auc_score(labels, scores))
    assert np.isclose(precision, metrics.average_precision_score(labels, scores))
    return wins, precision, fpr95


def votes(rng):
    """Returns the share of 4 members that disagree with the most frequent class."""
    classes = rng.integers(0, 3, size=(SIZE, 4))
    counts = (classes[..., None] == np.arange(3)).sum(1)
    return 1 - counts.max(1) / 4


rng = np.random.default_rng(0)
cases = {
    "all scores 0:": (np.zeros(SIZE), np.zeros(SIZE)),
    "votes:": (votes(rng), votes(rng)),
    "no ties:": (rng.normal(size=SIZE), 1 + rng.normal(size=SIZE)),
}
functions = (
    ood.out_of_distribution_detection_auroc,
    ood.out_of_distribution_detection_aupr,
    ood.out_of_distribution_detection_fpr_at_x_tpr,
)
differences = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name, case in cases.items():
        seen, right = [float(function(*case)) for function in functions], by_hand(*case)
        differences[name] = np.abs(np.subtract(seen, right))
        print(
            f"{name:13} AUROC {seen[0]:.3f}, by hand {right[0]:.3f}; "
            f"AUPR {seen[1]:.3f}, {right[1]:.3f}; FPR95 {seen[2]:.3f}, {right[2]:.3f}"
        )
        if name == "votes:":
            labels = np.repeat([1.0, 0.0], SIZE)
            first = float(roc_auc_score(labels, np.concatenate(case[::-1])))
            print(f"votes, out-of-distribution examples first: AUROC {first:.3f}")
wrong = min(differences["all scores 0:"]) > 0.4 and min(differences["votes:"]) > 0.15
same = max(differences["no ties:"]) < 1e-9
sys.exit(0 if wrong and same and first < 0.35 and not caught else 1)
EOF
