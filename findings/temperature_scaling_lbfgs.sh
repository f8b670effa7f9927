#!/usr/bin/env bash
# Temperature scaling in pytorch-ood, TorchCP and bensemble stops far from the optimum, or at a
# negative temperature, which turns the predictions round.
#
# Library:   pytorch-ood 0.4.0, torchcp 1.2.1 and bensemble 0.2.2, with torch 2.13.0, scipy 1.17.1
#            and numpy 2.4.6; Linux.
# Expected:  the temperature T > 0 that minimizes the NLL of softmax(logits / T) on the
#            validation data (Guo et al. 2017, arXiv 1706.04599, section 4.2). That is one
#            number, and scaling does not change the predicted class.
# Happens:   all three call torch.optim.LBFGS([T], lr=0.01) once, with 50 (pytorch-ood, bensemble)
#            or 100 iterations (TorchCP) and no line search. LBFGS multiplies its Newton
#            step by lr, so each iteration goes 1 % of that step. Overconfident networks keep
#            most of their overconfidence. (pytorch-ood's documentation says that the optimum is
#            "only approximately reached"; TorchCP prints its result as "Optimal temperature", and
#            bensemble's docstring says "Finds the optimal temperature".) The NLL is not convex in
#            T: where its curvature is about 0, a step is huge. For underconfident networks, as an
#            average of members, mixup or label smoothing makes them, T can end
#            below 0: the least probable class is then predicted. There is no exception or
#            warning; TorchCP refuses a temperature below 0 from the user only.
#            Source: TemperatureScaling.fit_logits in pytorch_ood/detector/tscaling.py,
#            TSTrainer.train in torchcp/classification/trainer/ts_trainer.py, and
#            TemperatureScaling.fit in bensemble/calibration/scaling.py.
# Way round: scipy.optimize.minimize_scalar over log T; in any case, check the sign of T.
# Seen (5,000 validation examples, 10 classes; the labels are drawn from softmax(z), the network's
# logits are `scale` times z):
#   scale 3.0: T = 1 has NLL 2.196, accuracy 52.6%
#     by hand     T    3.063, NLL 1.350, accuracy 52.6%
#     pytorch-ood T    1.240, NLL 1.874, accuracy 52.6%
#     TorchCP     T    1.500, NLL 1.661, accuracy 52.6%
#     bensemble   T    1.776, NLL 1.524, accuracy 52.6%
#   scale 0.8: T = 1 has NLL 1.369, accuracy 52.6%
#     by hand     T    0.817, NLL 1.350, accuracy 52.6%
#     pytorch-ood T    0.907, NLL 1.356, accuracy 52.6%
#     TorchCP     T    0.866, NLL 1.352, accuracy 52.6%
#     bensemble   T  -24.865, NLL 2.383, accuracy 0.2%
#   scale 0.5: T = 1 has NLL 1.516, accuracy 52.6%
#     by hand     T    0.511, NLL 1.350, accuracy 52.6%
#     pytorch-ood T   -3.621, NLL 2.672, accuracy 0.2%
#     TorchCP     T   -4.558, NLL 2.590, accuracy 0.2%
#     bensemble   T    1.349, NLL 1.643, accuracy 52.6%
#
# The classes are imported from their own modules, as torchcp as a whole needs transformers and
# torch-geometric.
# Usage: [TORCH_WHEEL=torch.whl] [PYTHON=python3.12] bash findings/temperature_scaling_lbfgs.sh
# TORCH_WHEEL replaces the wheel that pip chooses, which may bring CUDA along.
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
pip=("$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check)
"${pip[@]}" numpy==2.4.6 scipy==1.17.1 tqdm==4.70.1 "${TORCH_WHEEL:-torch==2.13.0}" || exit 2
"${pip[@]}" --no-deps pytorch-ood==0.4.0 torchcp==1.2.1 bensemble==0.2.2 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import importlib
import importlib.metadata
import sys
import types
import warnings

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch.utils.data import DataLoader, TensorDataset

for package, folders in {
    "pytorch-ood": ("pytorch_ood", "pytorch_ood/detector"),
    "torchcp": ("torchcp", "torchcp/classification", "torchcp/classification/trainer"),
    "bensemble": ("bensemble", "bensemble/calibration"),
}.items():  # packages of which only the modules asked for are imported
    files = importlib.metadata.distribution(package)
    for folder in folders:
        name = folder.replace("/", ".")
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(files.locate_file(folder))]
detector = importlib.import_module("pytorch_ood.detector.tscaling")
trainer = importlib.import_module("torchcp.classification.trainer.ts_trainer")
scaling = importlib.import_module("bensemble.calibration.scaling")


def pytorch_ood(logits, labels):
    """Returns the temperature of pytorch-ood's detector; it starts at 1."""
    return detector.TemperatureScaling(None).fit_logits(logits, labels).t.item()


def torchcp(logits, labels):
    """Returns the temperature of TorchCP's trainer, started at 1."""
    loader = DataLoader(TensorDataset(logits, labels), batch_size=1000)
    fit = trainer.TSTrainer(torch.nn.Identity(), 1.0, device="cpu", verbose=False)
    return fit.train(loader).get_temperature()


def bensemble(logits, labels):
    """Returns the temperature of bensemble; it starts at 1.5."""
    return scaling.TemperatureScaling().fit(logits, labels).temperature.item()


def nll(temperature, logits, labels):
    """Returns the mean of - log softmax(logits / T)[label], in float64."""
    return -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()


def by_hand(logits, labels):
    """Returns the temperature that minimizes the NLL, by Brent's method over log T."""
    arrays = logits.double().numpy(), labels.numpy()
    found = minimize_scalar(
        lambda log_t: nll(np.exp(log_t), *arrays), bounds=(-3, 3), method="bounded"
    )
    return float(np.exp(found.x))


FITS = {
    "by hand": by_hand,
    "pytorch-ood": pytorch_ood,
    "TorchCP": torchcp,
    "bensemble": bensemble,
}
generator = torch.Generator().manual_seed(0)
z = 2 * torch.randn(5000, 10, generator=generator)
labels = torch.multinomial(z.softmax(-1), 1, generator=generator)[:, 0]
seen = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for scale in (3.0, 0.8, 0.5):
        logits = scale * z
        arrays = logits.double().numpy(), labels.numpy()
        right = (arrays[0].argmax(1) == arrays[1]).mean()
        before = nll(1.0, *arrays)
        print(f"scale {scale}: T = 1 has NLL {before:.3f}, accuracy {right:.1%}")
        for name, fit in FITS.items():
            t = fit(logits, labels)
            seen[scale, name] = t
            right = ((arrays[0] / t).argmax(1) == arrays[1]).mean()
            print(
                f"  {name:11} T {t:8.3f}, NLL {nll(t, *arrays):.3f}, accuracy {right:.1%}"
            )
short = all(seen[3.0, name] < 2 for name in FITS if name != "by hand")
exact = all(abs(seen[scale, "by hand"] / scale - 1) < 0.05 for scale in (3.0, 0.8, 0.5))
negative = all(
    any(seen[scale, name] < 0 for scale in (0.8, 0.5)) for name in list(FITS)[1:]
)
sys.exit(0 if short and exact and negative and not caught else 1)
EOF
