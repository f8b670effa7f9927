#!/usr/bin/env bash
# Ensemble-PyTorch (torchensemble) reports a cross-entropy of probabilities taken as logits.
#
# Library:   torchensemble 0.2.0, with torch 2.13.0, scikit-learn 1.9.1 and numpy 2.4.6; Linux.
# Expected:  evaluate(loader, return_loss=True) returns "the average cross-entropy loss of the
#            fitted ensemble", - log p(label), averaged over the examples.
# Happens:   VotingClassifier and the other classifiers that average probabilities pass these
#            to nn.CrossEntropyLoss, which applies softmax again. The loss is between
#            log(e + K - 1) - 1 and log(e + K - 1) whatever the predictions are: of 10 classes
#            between 1.46 and 2.46. Perfect predictions have 1.46, and sure wrong ones cost
#            little, so that calibration hardly shows. It is also a mean over batches: examples
#            of a last, smaller batch count more. There is no warning. Accuracy is right.
# Way round: torch.nn.functional.nll_loss(ensemble(inputs).log(), labels).
# Seen (3 members of 10 classes; 1,000 examples in batches of 256):
#   fitted                  accuracy  45.2 %, loss 2.100, by hand 1.627
#   10 times the logits     accuracy  44.3 %, loss 2.061, by hand 6.194
#   always sure and right   accuracy 100.0 %, loss 1.461, by hand 0.000
#   always sure and wrong   accuracy   0.0 %, loss 2.461, by hand 50.000
#   log(e + 9) - 1 = 1.461
#
# Usage: [TORCH_WHEEL=torch.whl] [PYTHON=python3.12] bash findings/torchensemble_loss.sh
# TORCH_WHEEL replaces the wheel that pip chooses, which may bring CUDA along.
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
pip=("$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check)
"${pip[@]}" numpy==2.4.6 scikit-learn==1.9.1 "${TORCH_WHEEL:-torch==2.13.0}" || exit 2
"${pip[@]}" --no-deps torchensemble==0.2.0 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import logging
import math
import sys
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchensemble import VotingClassifier

CLASSES, SIZE = 10, 1000
logging.disable(logging.CRITICAL)
torch.manual_seed(0)


def measure(name, members, inputs, labels):
    """Returns the reported and the right loss of networks that scale their inputs."""
    ensemble = VotingClassifier(
        estimator=nn.Linear(CLASSES, CLASSES), n_estimators=len(members), cuda=False
    )
    ensemble.set_criterion(nn.CrossEntropyLoss())
    for noise, scale in members:
        network = nn.Linear(CLASSES, CLASSES, bias=False)
        network.weight.data = scale * (torch.eye(CLASSES) + noise)
        ensemble.estimators_.append(network)
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=256)
    accuracy, loss = ensemble.evaluate(loader, return_loss=True)
    with torch.no_grad():
        logits = torch.stack([inputs @ net.weight.T for net in ensemble.estimators_])
    probabilities = torch.softmax(logits.double(), -1).mean(0)
    right = abs(probabilities[torch.arange(SIZE), labels].log().mean().item())
    print(f"{name:23} accuracy {accuracy:5.1f} %, loss {loss:.3f}, by hand {right:.3f}")
    return loss, right


inputs = torch.randn(SIZE, CLASSES)
labels = torch.distributions.Categorical(logits=2 * inputs).sample()
noises = [0.3 * torch.randn(CLASSES, CLASSES) for _ in range(3)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fitted = measure("fitted", [(noise, 2.0) for noise in noises], inputs, labels)
    sure = measure("10 times the logits", [(noise, 20.0) for noise in noises], inputs, labels)
    hits = nn.functional.one_hot(labels, CLASSES).float()
    perfect = measure("always sure and right", [(0 * noises[0], 50.0)], hits, labels)
    misses = nn.functional.one_hot((labels + 1) % CLASSES, CLASSES).float()
    wrong = measure("always sure and wrong", [(0 * noises[0], 50.0)], misses, labels)
low = math.log(math.e + CLASSES - 1) - 1
print(f"log(e + 9) - 1 = {low:.3f}")
bounds = abs(perfect[0] - low) < 1e-4 and abs(wrong[0] - low - 1) < 1e-4
hand = perfect[1] < 1e-6 and wrong[1] > 40
ranks = abs(sure[0] - fitted[0]) < 0.2 and sure[1] > 2 * fitted[1]
sys.exit(0 if bounds and hand and ranks and not caught else 1)
EOF
