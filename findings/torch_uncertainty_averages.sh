#!/usr/bin/env bash
# torch-uncertainty's SWA counts the first checkpoint twice, and its EMA evaluates networks
# with the batch statistics of the initialization.
#
# Library:   torch-uncertainty 0.13.0, with torch 2.13.0 and numpy 2.4.6; Linux.
# Expected:  SWA is the mean of the n weights collected (Izmailov et al. 2018, arXiv
#            1803.05407, algorithm 1): each counts 1/n. A network of averaged weights is
#            evaluated with batch statistics of the training data, as the paper says and as
#            SWA.bn_update of the same package computes them.
# Happens:   SWA.update_wrapper sets the count of averaged networks to 1 with the first, and
#            then adds 1 as for the others: the first counts 2/(n + 1), the others
#            1/(n + 1). EMA.update_wrapper averages parameters only, and nothing else writes
#            the buffers of the averaged network: running means stay 0 and variances 1, and
#            there is no bn_update. There is no warning in either case.
# Way round: set `num_avgd_models` to 1 after the first update of SWA; after training, call
#            torch.optim.swa_utils.update_bn(loader, ema.ema_model).
# Seen:
#   SWA of 2 networks: 0.667 0.333
#   SWA of 4 networks: 0.400 0.200 0.200 0.200
#   SWA of 4 networks, way round: 0.250 0.250 0.250 0.250
#   accuracy of the network 99.9 %, of its EMA 28.0 %, after update_bn 100.0 %
#   running means of the network -3.67 to 3.89, of its EMA 0.00 to 0.00
#
# The classes are imported from their own modules, as the package as a whole needs
# torchvision and lightning.
# Usage: [TORCH_WHEEL=torch.whl] [PYTHON=python3.12] bash findings/torch_uncertainty_averages.sh
# TORCH_WHEEL replaces the wheel that pip chooses, which may bring CUDA along.
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
pip=("$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check)
"${pip[@]}" numpy==2.4.6 "${TORCH_WHEEL:-torch==2.13.0}" || exit 2
"${pip[@]}" --no-deps torch-uncertainty==0.13.0 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import importlib
import importlib.metadata
import sys
import types
import warnings

import torch
from torch import nn

root = importlib.metadata.distribution("torch-uncertainty").locate_file(
    "torch_uncertainty"
)
for parts in ((), ("methods",)):  # only the modules asked for are imported
    name = ".".join(("torch_uncertainty", *parts))
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(root.joinpath(*parts))]
SWA = importlib.import_module("torch_uncertainty.methods.swa").SWA
EMA = importlib.import_module("torch_uncertainty.methods.ema").EMA


def shares(networks, mend=False):
    """Returns how much each of the networks counts: network i has the weights e_i."""
    network = nn.Linear(networks, 1, bias=False)
    swa = SWA(network, cycle_start=0, cycle_length=1)
    for epoch in range(networks):
        network.weight.data = torch.eye(networks)[epoch : epoch + 1]
        swa.update_wrapper(epoch)
        if mend and epoch == 0:
            swa.num_avgd_models.fill_(1)
    return swa.swa_model.weight.detach()[0]


torch.manual_seed(0)
labels = torch.randint(0, 4, (1024,))
inputs = 3 + 2 * torch.randn(4, 8)[labels] + 0.5 * torch.randn(1024, 8)
batches = list(zip(inputs.split(64), labels.split(64), strict=True))


def accuracy(model):
    model.eval()
    with torch.no_grad():
        return 100 * float((model(inputs).argmax(-1) == labels).double().mean())


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    seen = [shares(2), shares(4), shares(4, mend=True)]
    network = nn.Sequential(
        nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)
    )
    ema = EMA(network, momentum=0.9)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for epoch in range(10):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(ema(x), y).backward()
            optimizer.step()
            ema.update_wrapper(epoch)
    plain, averaged = accuracy(network), accuracy(ema)
    means = [one[1].running_mean.clone() for one in (network, ema.ema_model)]
    torch.optim.swa_utils.update_bn([x for x, _ in batches], ema.ema_model)
    mended = accuracy(ema)
for name, row in zip(("2 networks", "4 networks", "4 networks, way round"), seen):
    print(f"SWA of {name}: " + " ".join(f"{value:.3f}" for value in row))
print(
    f"accuracy of the network {plain:.1f} %, of its EMA {averaged:.1f} %, "
    f"after update_bn {mended:.1f} %"
)
spans = [f"{one.min():.2f} to {one.max():.2f}" for one in means]
print(f"running means of the network {spans[0]}, of its EMA {spans[1]}")
swa = torch.allclose(seen[1], torch.tensor([2, 1, 1, 1]) / 5)
right = torch.allclose(seen[2], torch.full((4,), 0.25))
lost = averaged < plain - 20 and not means[1].any() and mended > plain - 5
sys.exit(0 if swa and right and lost and not caught else 1)
EOF
