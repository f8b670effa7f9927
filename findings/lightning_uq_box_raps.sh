#!/usr/bin/env bash
# Lightning UQ Box reports accuracy and 1.0 as the coverage and size of conformal sets.
#
# Library:   lightning-uq-box 0.2.0, with lightning 2.6.6, torch 2.13.0, torchmetrics 1.9.0
#            and numpy 2.4.6; Linux.
# Expected:  the test metrics "Empirical Coverage" and "Set Size" of RAPS are the share of
#            RAPS's sets that contain the label, about 1 - alpha or more, and their mean size.
# Happens:   RAPS.test_step passes the probabilities to the metrics, not the sets that it has
#            computed; the metrics then take the most probable class as the set. So
#            Trainer.test reports the accuracy as the coverage, and a size of 1, whatever the
#            sets are. predict_step returns the right sets. There is no warning.
# Way round: compute both from the `pred_set` that predict_step returns.
# Seen (1,000 calibration and 2,000 test examples, alpha = 0.1, kreg 1, lambda 0.01):
#   Trainer.test: accuracy 64.9 %, coverage 64.9 %, size 1.00
#   pred_set:                      coverage 94.5 %, size 2.62
#
# The class is imported from its own module, as the package as a whole needs gpytorch,
# kornia, laplace-torch, timm and others.
# Usage: [TORCH_WHEEL=torch.whl] [PYTHON=python3.12] bash findings/lightning_uq_box_raps.sh
# TORCH_WHEEL replaces the wheel that pip chooses, which may bring CUDA along.
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
pip=("$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check)
"${pip[@]}" lightning==2.6.6 torchmetrics==1.9.0 numpy==2.4.6 pandas==3.1.1 \
  h5py==3.16.0 scipy==1.17.1 \
  "jsonargparse[signatures]==4.53.0" "${TORCH_WHEEL:-torch==2.13.0}" || exit 2
"${pip[@]}" --no-deps lightning-uq-box==0.2.0 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import importlib
import importlib.metadata
import logging
import sys
import types
import warnings

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

root = importlib.metadata.distribution("lightning-uq-box").locate_file(
    "lightning_uq_box"
)
for parts in ((), ("uq_methods",)):  # only the modules asked for are imported
    name = ".".join(("lightning_uq_box", *parts))
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(root.joinpath(*parts))]
logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
raps = importlib.import_module("lightning_uq_box.uq_methods.raps")
Trainer = importlib.import_module("lightning").Trainer

CALIBRATION, TEST, CLASSES = 1000, 2000, 5
torch.manual_seed(0)
np.random.seed(0)
logits = 2 * torch.randn(CALIBRATION + TEST, CLASSES)
labels = torch.multinomial(logits.softmax(-1), 1)[:, 0]
examples = [{"input": x, "target": y} for x, y in zip(logits, labels, strict=True)]
identity = nn.Sequential(nn.Linear(CLASSES, CLASSES))
identity[0].weight.data.copy_(torch.eye(CLASSES))
identity[0].bias.data.zero_()
model = raps.RAPS(identity, alpha=0.1, kreg=1, lamda_param=0.01)
options = {
    "max_epochs": 1,
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
Trainer(**options).fit(model, DataLoader(examples[:CALIBRATION], 100))
tests = DataLoader(examples[CALIBRATION:], 100)
reported = Trainer(**options).test(model, tests, verbose=False)[0]
accuracy = reported["testAcc"]
coverage, size = reported["testEmpirical Coverage"], reported["testSet Size"]
print(
    f"Trainer.test: accuracy {100 * accuracy:.1f} %, coverage {100 * coverage:.1f} %, "
    f"size {size:.2f}"
)
sets = model.predict_step(logits[CALIBRATION:])["pred_set"]
pairs = zip(labels[CALIBRATION:].tolist(), sets, strict=True)
covered = np.mean([label in one.tolist() for label, one in pairs])
sizes = np.mean([len(one) for one in sets])
print(
    f"pred_set:                      coverage {100 * covered:.1f} %, size {sizes:.2f}"
)
same = abs(coverage - accuracy) < 1e-6 and size == 1
sys.exit(0 if same and covered > 0.88 and sizes > 1.5 else 1)
EOF
