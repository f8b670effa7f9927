#!/usr/bin/env bash
# Uncertainty Toolbox counts the labels above a quantile as those below it, so that its
# recalibration of quantiles doubles a bias instead of removing it.
#
# Library:   uncertainty-toolbox 0.1.1, with numpy 2.4.6, scipy 1.17.1, scikit-learn 1.9.1; Linux.
# Expected:  by its documentation, prop_type="quantile" measures "observed proportions below a
#            predicted quantile", mean + std z_p, and get_quantile_recalibrator returns "a function
#            which outputs the recalibrated quantile prediction": the share p of new labels is
#            below it (Kuleshov et al. 2018, arXiv 1807.00263, algorithm 1).
# Happens:   without an exception or a warning. The residual is y_pred - y_true; compared with
#            z_p, that counts the labels above mean - std z_p, the mirror image. Where
#            the errors are symmetric about 0, both are the same; where the means are biased, as
#            those of a student or of an ensemble on shifted data, the curve of proportions
#            is that of the opposite bias, and the recalibration goes the wrong way. The mean
#            absolute error over the curve does not change, so the numbers do not tell.
#            Intervals, prop_type="interval", are not affected.
#            Source: get_proportion_lists_vectorized, get_proportion_under_quantile and
#            miscalibration_area in uncertainty_toolbox/metrics_calibration.py.
# Way round: pass -y_pred and -y_true to the functions of proportions; for the recalibration,
#            get_quantile with recal_model=iso_recal(*get_proportion_lists_vectorized(
#            -y_pred, y_std, -y_true, prop_type="quantile")).
# Seen (4,000 examples to fit and 4,000 new ones; std 1, mean = label + bias + noise of std 1):
#   bias 0.0: levels 10% 50% 90%
#     below, reported               9.8%  50.3%  89.5%
#     below, by hand               10.5%  49.7%  90.2%
#     new labels, as predicted      9.9%  49.8%  90.4%
#     new labels, recalibrated     10.2%  49.5%  90.8%
#     new labels, way round         9.6%  50.2%  90.2%
#     new labels, by hand           9.7%  50.3%  90.2%
#   bias 0.5: levels 10% 50% 90%
#     below, reported               3.7%  30.2%  78.8%
#     below, by hand               21.2%  69.8%  96.3%
#     new labels, as predicted     21.6%  68.9%  96.1%
#     new labels, recalibrated     39.1%  83.1%  98.9%
#     new labels, way round        10.1%  48.9%  89.3%
#     new labels, by hand          10.2%  48.8%  89.2%
#
# Usage: [PYTHON=python3.12] bash findings/uncertainty_toolbox_quantiles.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  uncertainty-toolbox==0.1.1 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 \
  matplotlib==3.11.2 tqdm==4.70.1 || exit 2
cd "$work"
MPLCONFIGDIR="$work" MPLBACKEND=agg "$work/venv/bin/python" - << 'EOF'
import sys
import warnings

import numpy as np
import uncertainty_toolbox as uct
from scipy.stats import norm
from uncertainty_toolbox.metrics_calibration import get_quantile
from uncertainty_toolbox.recalibration import get_quantile_recalibrator

SIZE, LEVELS = 4000, (0.1, 0.5, 0.9)
rng = np.random.default_rng(0)


def draw(bias):
    """Returns means, standard deviations and labels."""
    labels = rng.normal(size=SIZE)
    return labels + bias + rng.normal(size=SIZE), np.ones(SIZE), labels


def row(name, shares):
    """Prints the shares of one row and returns them."""
    print(f"  {name:27}" + "".join(f" {share:6.1%}" for share in shares))
    return np.array(shares)


seen = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for bias in (0.0, 0.5):
        mean, std, labels = draw(bias)
        new_mean, new_std, new_labels = draw(bias)
        print(f"bias {bias}: levels" + "".join(f" {level:.0%}" for level in LEVELS))
        exp, obs = uct.get_proportion_lists_vectorized(
            mean, std, labels, num_bins=11, prop_type="quantile"
        )
        reported = row("below, reported", [obs[round(10 * p)] for p in LEVELS])
        below = row(
            "below, by hand", [np.mean(labels <= mean + std * norm.ppf(p)) for p in LEVELS]
        )
        recalibrate = get_quantile_recalibrator(mean, std, labels)
        mirrored = uct.get_proportion_lists_vectorized(
            -mean, std, -labels, prop_type="quantile"
        )
        model = uct.iso_recal(*mirrored)
        z = (labels - mean) / std
        quantiles = {
            "new labels, as predicted": lambda p: get_quantile(new_mean, new_std, p),
            "new labels, recalibrated": lambda p: recalibrate(new_mean, new_std, p),
            "new labels, way round": lambda p: get_quantile(new_mean, new_std, p, model),
            "new labels, by hand": lambda p: new_mean + new_std * np.quantile(z, p),
        }
        shares = [
            row(name, [np.mean(new_labels <= quantile(p)) for p in LEVELS])
            for name, quantile in quantiles.items()
        ]
        seen[bias] = reported, below, *shares
levels = np.array(LEVELS)
unbiased = all(np.abs(shares - levels).max() < 0.04 for shares in seen[0.0])
reported, below, predicted, recalibrated, way_round, right = seen[0.5]
mirror = np.abs(reported + below[::-1] - 1).max() < 1e-3
worse = np.all(recalibrated > predicted + 0.01) and np.all(predicted > levels + 0.03)
good = max(np.abs(way_round - levels).max(), np.abs(right - levels).max()) < 0.04
sys.exit(0 if unbiased and mirror and worse and good and not caught else 1)
EOF
