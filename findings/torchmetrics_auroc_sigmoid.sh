#!/usr/bin/env bash
# torchmetrics gives an AUROC of 0.5 for perfectly separated scores above about 17.
#
# Library:   torchmetrics 1.9.0, with torch 2.13.0 and numpy 2.4.6; Linux.
# Expected:  the AUROC of real-valued scores depends on their order only, as that of
#            scikit-learn does. OOD scores such as the largest logit or minus the energy
#            are often between 5 and 40.
# Happens:   BinaryAUROC and BinaryAveragePrecision apply a sigmoid to a batch with any
#            score outside [0, 1] (the documentation says so). In float32 the sigmoid of
#            every score above 17.4 is 1, so all are ties: perfect separation gives 0.5,
#            without a warning. The decision is made for each batch, so the batches of
#            one test set can end up on two scales: the AUROC then changes with the batch
#            size.
# Way round: rank the scores first, or scale them to [0, 1] over the whole test set.
# Seen:
#   500 scores in [0, 1) + s, 500 in [1, 2) + s
#   s  0: AUROC 1.0000, average precision 1.0000
#   s  5: AUROC 1.0000, average precision 1.0000
#   s 15: AUROC 0.8566, average precision 0.8034
#   s 20: AUROC 0.5000, average precision 0.5000
#   s 20, ranked first: AUROC 1.0000
#   scores 0.2 0.4 0.3 3.0 of classes 0 1 0 1: one batch 1.00, two batches 0.75
#   warnings: 0
#
# Usage: [TORCH_WHEEL=torch.whl] [PYTHON=python3.12] bash findings/torchmetrics_auroc_sigmoid.sh
# TORCH_WHEEL replaces the wheel that pip chooses, which may bring CUDA along.
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
  torchmetrics==1.9.0 numpy==2.4.6 "${TORCH_WHEEL:-torch==2.13.0}" || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import sys
import warnings

import torch
from torchmetrics.classification import BinaryAUROC
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
)

generator = torch.Generator().manual_seed(0)
low = torch.rand(500, generator=generator)
scores = torch.cat([low, 1 + low])
labels = torch.cat([torch.zeros(500), torch.ones(500)]).int()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print("500 scores in [0, 1) + s, 500 in [1, 2) + s")
    aurocs = {}
    for shift in (0, 5, 15, 20):
        aurocs[shift] = float(binary_auroc(scores + shift, labels))
        precision = float(binary_average_precision(scores + shift, labels))
        print(
            f"s {shift:2}: AUROC {aurocs[shift]:.4f}, average precision {precision:.4f}"
        )
    ranks = (scores + 20).argsort().argsort() / len(scores)
    ranked = float(binary_auroc(ranks, labels))
    print(f"s 20, ranked first: AUROC {ranked:.4f}")
    four, classes = torch.tensor([0.2, 0.4, 0.3, 3.0]), torch.tensor([0, 1, 0, 1])
    found = []
    for size in (4, 2):
        metric = BinaryAUROC()
        for start in range(0, 4, size):
            metric.update(four[start : start + size], classes[start : start + size])
        found.append(float(metric.compute()))
print(
    "scores 0.2 0.4 0.3 3.0 of classes 0 1 0 1: "
    f"one batch {found[0]:.2f}, two batches {found[1]:.2f}"
)
print(f"warnings: {len(caught)}")
happens = aurocs[0] == ranked == 1 and aurocs[20] == 0.5 and found == [1.0, 0.75]
sys.exit(0 if happens and not caught else 1)
EOF
