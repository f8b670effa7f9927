#!/usr/bin/env bash
# Lightning UQ Box's SWAG samples weights around a mean that counts the first snapshot twice.
#
# Library:   lightning-uq-box 0.2.0, with lightning 2.6.6, torch 2.13.0 and numpy 2.4.6; Linux.
# Expected:  the mean of n snapshots (Maddox et al. 2019, arXiv 1902.02476, algorithm 1). Of
#            weights that do not change, it is these weights, and their variance is 0.
# Happens:   the buffer of the mean starts as a copy of the weights instead of zeros, and the
#            first snapshot is added to it: of weights that do not change, the mean is
#            (n + 1) / n times these, twice after one snapshot. The deviations from it are
#            off too; the mean of squares is right, so the diagonal variance is negative,
#            and cut off at 1e-30. Predictions become more confident, without a warning.
# Way round: set the buffers `..._mean` of `model.model` to zeros before training.
# Seen (learning rate 0, so that every snapshot is the network itself):
#   network: mean largest probability 0.542
#    1 snapshots: mean / weights 2.000, mean largest probability 0.675
#    5 snapshots: mean / weights 1.200, mean largest probability 0.578
#   20 snapshots: mean / weights 1.050, mean largest probability 0.542
#    5 snapshots, way round: mean / weights 1.000, mean largest probability 0.542
#
# The class is imported from its own module, as the package as a whole needs gpytorch,
# kornia, laplace-torch, timm and others.
# Usage: [TORCH_WHEEL=torch.whl] [PYTHON=python3.12] bash findings/lightning_uq_box_swag.sh
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
swag = importlib.import_module("lightning_uq_box.uq_methods.swag")
Trainer = importlib.import_module("lightning").Trainer

torch.manual_seed(0)
inputs = torch.randn(20, 4)
data = [{"input": x, "target": torch.tensor(0)} for x in inputs]
kernel = 0.5 * torch.randn(3, 4)


def fit(snapshots, zeros=False):
    """Returns the ratio of the mean to the weights, and the mean largest probability."""
    network = nn.Sequential(nn.Linear(4, 3, bias=False))
    network[0].weight.data.copy_(kernel)
    model = swag.SWAGClassification(
        network,
        max_swag_snapshots=20,
        snapshot_freq=1,
        num_mc_samples=20,
        swag_lr=0.0,
        loss_fn=nn.CrossEntropyLoss(),
    )
    if zeros:
        model.model.get_buffer("0_weight_mean").data.zero_()
    Trainer(
        max_steps=snapshots,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, DataLoader(data, batch_size=1))
    assert model.num_tracked == snapshots
    ratio = (model.model.get_buffer("0_weight_mean") / kernel).mean()
    largest = model.predict_step(inputs)["pred"].amax(-1).mean()
    return float(ratio), float(largest)


plain = (inputs @ kernel.T).softmax(-1).amax(-1).mean()
print(f"network: mean largest probability {plain:.3f}")
seen = {}
for snapshots, zeros in ((1, False), (5, False), (20, False), (5, True)):
    ratio, largest = fit(snapshots, zeros)
    seen[snapshots, zeros] = ratio
    print(
        f"{snapshots:2} snapshots{', way round' * zeros}: mean / weights {ratio:.3f}, "
        f"mean largest probability {largest:.3f}"
    )
wrong = all(abs(seen[n, False] - (n + 1) / n) < 1e-3 for n in (1, 5, 20))
sys.exit(0 if wrong and abs(seen[5, True] - 1) < 1e-3 else 1)
EOF
