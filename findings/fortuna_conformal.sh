#!/usr/bin/env bash
# Fortuna's conformal sets leave out the classes that the network is surest of, and its
# maximum calibration error is multiplied by the number of examples in a bin.
#
# Library:   aws-fortuna 0.2.0, with jax 0.4.38, flax 0.8.5, optax 0.1.9 and numpy 1.26.4;
#            Python 3.9 to 3.11, Linux.
# Expected:  the prediction set contains the classes whose score, such as 1 - probability, is
#            not above about the 1 - error quantile of the calibration scores (Romano et al.
#            2020, arXiv 2006.02544). The maximum calibration error is the
#            largest gap of accuracy and confidence over the bins (Naeini et al. 2015).
# Happens:   without an exception or a warning:
#            - The comparison of the scores is the wrong way round: a class is left out if
#              its score is below most calibration scores. Every unlikely class is in the
#              set, and the most probable one is missing where the network is sure. The
#              coverage is about right, as a tenth of the labels are left out at the other
#              end, so it does not tell; the sets have nearly all classes. So it is in
#              SimplePredictionConformalClassifier and AdaptivePredictionConformalClassifier.
#            - maximum_calibration_error grows with the number of examples, above 1.
# Way round: both written by hand.
# Seen (500 calibration and 1,000 test examples, 10 classes, error 0.1):
#   simple             covers 89.4 %, 9.89 classes, most probable class in 89.3 %
#   simple, by hand    covers 88.6 %, 2.04 classes, most probable class in 100.0 %
#   adaptive           covers 89.5 %, 9.71 classes, most probable class in 72.4 %
#   adaptive, by hand  covers 88.9 %, 3.15 classes, most probable class in 94.4 %
#     100 examples: maximum calibration error 20.0, by hand 0.2
#    1000 examples: maximum calibration error 200.0, by hand 0.2
#
# The functions are imported from their own modules, as the package as a whole needs TensorFlow.
# Usage: [PYTHON=python3.11] bash findings/fortuna_conformal.sh
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
pip=("$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check)
"${pip[@]}" jax==0.4.38 jaxlib==0.4.38 flax==0.8.5 optax==0.1.9 numpy==1.26.4 || exit 2
"${pip[@]}" --no-deps aws-fortuna==0.2.0 || exit 2
cd "$work"
JAX_PLATFORMS=cpu "$work/venv/bin/python" - << 'EOF'
import importlib
import importlib.metadata
import math
import sys
import types
import warnings

import numpy as np

root = importlib.metadata.distribution("aws-fortuna").locate_file("fortuna")


def package(name, *parts):
    """Makes a package of which only the modules asked for are imported."""
    module = types.ModuleType(name)
    module.__path__ = [str(root.joinpath(*parts))]
    sys.modules[name] = module
    return module


package("fortuna")
package("fortuna.conformal", "conformal")
package("fortuna.conformal.classification", "conformal", "classification")
package("fortuna.metric", "metric")
package("fortuna.data", "data")
package("fortuna.data.loader", "data", "loader").TargetsLoader = type("Unused", (), {})
package("fortuna.plot").plot_reliability_diagram = None  # plots are not asked for
CALIBRATION, TEST, CLASSES, ERROR = 500, 1000, 10, 0.1

rng = np.random.default_rng(0)
logits = 3 * rng.normal(size=(CALIBRATION + TEST, CLASSES))
probabilities = np.exp(logits)
probabilities /= probabilities.sum(1, keepdims=True)
labels = (probabilities.cumsum(1) > rng.random((len(logits), 1))).argmax(1)
test, truth = probabilities[CALIBRATION:], labels[CALIBRATION:]
top = test.argmax(1)


def adaptive(rows):
    """Returns for each class the probability of it and of all more probable ones."""
    return (rows[:, None, :] * (rows[:, None, :] >= rows[..., None])).sum(-1)


def show(name, sets):
    covered, found = sets[np.arange(TEST), truth].mean(), sets[np.arange(TEST), top].mean()
    size = sets.sum(1).mean()
    print(
        f"{name:18} covers {100 * covered:.1f} %, {size:.2f} classes, "
        f"most probable class in {100 * found:.1f} %"
    )
    return covered, size, found


seen, right = {}, {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name, score in (("simple", lambda rows: 1 - rows), ("adaptive", adaptive)):
        module = importlib.import_module(
            f"fortuna.conformal.classification.{name}_prediction"
        )
        method = getattr(module, f"{name.title()}PredictionConformalClassifier")()
        chosen = method.conformal_set(
            val_probs=probabilities[:CALIBRATION],
            val_targets=labels[:CALIBRATION],
            test_probs=test,
            error=ERROR,
        )
        sets = np.array([[k in row for k in range(CLASSES)] for row in chosen])
        seen[name] = show(name, sets)
        scores = score(probabilities)
        own = np.sort(scores[np.arange(CALIBRATION), labels[:CALIBRATION]])
        threshold = own[math.ceil((CALIBRATION + 1) * (1 - ERROR)) - 1]
        right[name] = show(f"{name}, by hand", scores[CALIBRATION:] <= threshold)

    # Confidence 0.9 and accuracy 0.7, in one bin.
    metric = importlib.import_module("fortuna.metric.classification")
    errors = []
    for size in (100, 1000):
        rows = np.tile(np.array([[0.9, 0.1]], np.float32), (size, 1))
        targets = (np.arange(size) >= 0.7 * size).astype(int)
        errors += [float(metric.maximum_calibration_error(np.zeros(size, int), rows, targets))]
        print(f"{size:5} examples: maximum calibration error {errors[-1]:.1f}, by hand 0.2")
conformal = all(
    seen[name][1] > 9 and seen[name][2] < 0.95 and right[name][1] < 6 for name in seen
)
multiplied = abs(errors[0] - 20) < 0.01 and abs(errors[1] - 200) < 0.1
sys.exit(0 if conformal and multiplied and not caught else 1)
EOF
