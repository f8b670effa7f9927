#!/usr/bin/env bash
# netcal's confidence penalty for training rewards confidence, and its DCA penalty has no weight.
#
# Library:   netcal 1.4.0, with torch 2.13.0 and numpy 2.4.6; Linux.
# Expected:  penalties that "can be applied to any loss function", by the docstrings: surer
#            predictions, a larger loss. Pereyra et al. 2017 (arXiv 1701.06548) add - weight H(p), and with a
#            threshold penalize only an entropy below it: weight max(0, threshold - H(p)).
#            DCAPenalty(weight): "Weight of DCA regularization" (Liang et al. 2020,
#            arXiv 2009.04057: loss + weight DCA).
# Happens:   without an exception or a warning:
#            - ConfidencePenalty returns + weight H(p), the opposite: added to a loss it
#              makes the network surer. It is the mean over the classes too, K times smaller
#              than the entropy, unless reduction="batchmean". The function for NumPy
#              of the same name, confidence_penalty, has the right sign.
#            - With a threshold, confidence_penalty subtracts the hinge, so that the most
#              confident predictions have the smallest penalty. (The paper prints this
#              sign as well, beside a text that says the opposite.)
#            - DCAPenalty ignores its weight.
#            Source: ConfidencePenalty.forward and confidence_penalty in
#            netcal/regularization/ConfidencePenalty.py, DCAPenalty.forward in DCAPenalty.py.
# Way round: subtract ConfidencePenalty(reduction="batchmean"); the others written by hand.
# Seen (weight 1 and the probabilities 0.98 0.01 0.01 and 0.4 0.3 0.3; "threshold 1" is the value by
# hand and that of the function; a linear classifier of 10 classes with 20 % of the labels random):
#   sure  : by hand -0.112, function -0.112, class 0.112 (mean 0.037); threshold 1: 0.888, -0.888
#   unsure: by hand -1.089, function -1.089, class 1.089 (mean 0.363); threshold 1: 0.000, -0.000
#   DCA, weight 0.1 and 10: 0.306 0.306, by hand 0.031 3.059
#   trained with no penalty       : mean largest probability 0.579, NLL 1.625
#   trained with by hand          : mean largest probability 0.465, NLL 1.550
#   trained with ConfidencePenalty: mean largest probability 0.655, NLL 1.767
#
# The classes are imported from their own modules, as the package needs pyro and gpytorch.
# Usage: [TORCH_WHEEL=torch.whl] [PYTHON=python3.12] bash findings/netcal_penalties.sh
# TORCH_WHEEL replaces the wheel that pip chooses, which may bring CUDA along.
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
pip=("$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check)
"${pip[@]}" numpy==2.4.6 "${TORCH_WHEEL:-torch==2.13.0}" || exit 2
"${pip[@]}" --no-deps netcal==1.4.0 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import importlib
import importlib.metadata
import sys
import types
import warnings

import numpy as np
import torch
from torch.nn import functional

files = importlib.metadata.distribution("netcal")
for folder in ("netcal", "netcal/regularization"):
    name = folder.replace("/", ".")
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(files.locate_file(folder))]
# The one name that the module takes from the package: it wraps functions by a decorator.
decorator = importlib.import_module("netcal.Decorator")
sys.modules["netcal"].global_dimensions = decorator.global_dimensions
penalties = importlib.import_module("netcal.regularization.ConfidencePenalty")
dca = importlib.import_module("netcal.regularization.DCAPenalty")


def entropy(probs):
    """Returns the entropy in nats."""
    return -np.sum(probs * np.log(probs), axis=-1)


def train(penalty):
    """Returns the largest probability and the NLL of a linear classifier on new examples."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1500, 20, generator=generator)
    weights = torch.randn(20, 10, generator=generator)
    labels = (inputs @ weights).argmax(1)
    noisy = torch.rand(1500, generator=generator) < 0.2
    labels = torch.where(noisy, torch.randint(10, (1500,), generator=generator), labels)
    matrix = torch.zeros(20, 10, requires_grad=True)
    for _ in range(300):  # gradient descent
        logits = inputs[:500] @ matrix
        loss = functional.cross_entropy(logits, labels[:500]) + penalty(logits)
        (gradient,) = torch.autograd.grad(loss, matrix)
        matrix.data -= gradient
    with torch.no_grad():
        logits = inputs[500:] @ matrix
    nll = functional.cross_entropy(logits, labels[500:]).item()
    return logits.softmax(-1).amax(-1).mean().item(), nll


def by_hand(logits):
    """Returns - weight H(p), weight 0.3, as in the paper."""
    log_probs = functional.log_softmax(logits, -1)
    return 0.3 * (log_probs.exp() * log_probs).sum(-1).mean()


torch.set_num_threads(1)
rows = {"sure": [0.98, 0.01, 0.01], "unsure": [0.4, 0.3, 0.3]}
seen = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for name, row in rows.items():
        probs = np.array([row])
        hand = -entropy(probs).mean(), max(0.0, 1.0 - entropy(probs).mean())
        plain = penalties.confidence_penalty(probs, 1.0)
        hinge = penalties.confidence_penalty(probs, 1.0, 1.0)
        logits = torch.log(torch.tensor(probs, dtype=torch.float32))
        batchmean = penalties.ConfidencePenalty(1.0, reduction="batchmean")(logits).item()
        mean = penalties.ConfidencePenalty(1.0)(logits).item()
        seen[name] = plain, hinge, batchmean, mean, *hand
        print(
            f"{name:6}: by hand {hand[0]:6.3f}, function {plain:6.3f}, class {batchmean:5.3f} "
            f"(mean {mean:5.3f}); threshold 1: {hand[1]:.3f}, {hinge:6.3f}"
        )
    logits, labels = torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([1, 0])
    gaps = [dca.DCAPenalty(weight)(logits, labels).item() for weight in (0.1, 10.0)]
    gap = abs(logits.softmax(-1).amax(-1).mean().item() - 0.5)
    print(
        f"DCA, weight 0.1 and 10: {gaps[0]:.3f} {gaps[1]:.3f}, "
        f"by hand {0.1 * gap:.3f} {10 * gap:.3f}"
    )
    runs = {
        "no penalty": lambda logits: 0.0,
        "by hand": by_hand,
        "ConfidencePenalty": penalties.ConfidencePenalty(0.3, reduction="batchmean"),
    }
    trained = {name: train(penalty) for name, penalty in runs.items()}
for name, (confidence, nll) in trained.items():
    print(f"trained with {name:17}: mean largest probability {confidence:.3f}, NLL {nll:.3f}")
signs = all(
    abs(plain - hand) < 1e-4 and abs(batchmean + hand) < 1e-4 and abs(3 * mean + hand) < 1e-4
    for plain, _, batchmean, mean, hand, _ in seen.values()
)
hinges = all(abs(row[1] + row[5]) < 1e-4 for row in seen.values()) and seen["sure"][1] < -0.5
weights = abs(gaps[0] - gap) < 1e-6 and abs(gaps[1] - gap) < 1e-6
surer = trained["ConfidencePenalty"][0] > trained["no penalty"][0] + 0.01
softer = trained["by hand"][0] < trained["no penalty"][0] - 0.01
happens = signs and hinges and weights and surer and softer
sys.exit(0 if happens and not caught else 1)
EOF
