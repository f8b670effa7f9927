#!/usr/bin/env bash
# Three distillation losses of torchdistill are not those that they name as their source.
#
# Library:   torchdistill 1.1.5, with torch 2.13.0 and numpy 2.4.6; Linux.
# Expected and happens, without an exception or a warning:
#   KDLoss        The docstring gives a CE + (1 - a) T^2 KL. With a = 0, distillation
#                 without labels, the loss is KL without T^2, and `beta` is ignored: with
#                 T = 4 its gradients are 16 times smaller than with a = 1e-9. So it is
#                 without targets, and in LogitStdKDLoss.
#   SPKDLoss      Tung and Mori 2019 (arXiv 1907.09682, equations 1 to 4) divide each row of
#                 the similarities by its L2 norm; here it is the L1 norm, as the 1 in
#                 normalize(x, 1), meant as the axis, is the order of the norm.
#   DISTPlusLoss  Relations of DIST are compared by 1 - correlation (Huang et al. 2022, arXiv
#                 2205.10536), as are those of logits and of pixels here. The term of
#                 channels is the correlation itself, and is added: the teacher's own
#                 features have its largest value, and its minimum is the opposite of them.
# Way round: `alpha` above 0, such as 1e-9, with targets; the two others written by hand.
# Seen:
#   KDLoss, T = 4, alpha 1e-09: 0.6051, by the formula 0.6051
#   KDLoss, T = 4, alpha 0.0: 0.0378, by the formula 0.6051
#   SPKDLoss: 0.0304, with L2 norms 0.1445, with L1 norms 0.0304
#   DISTPlusLoss, term of channels: of the teacher's features 1.00, of their opposite -1.00
#   DISTPlusLoss minimized over the student's features: correlation with the teacher's -1.00
#
# The losses are imported from their own module, as the package as a whole needs torchvision.
# Usage: [TORCH_WHEEL=torch.whl] [PYTHON=python3.12] bash findings/torchdistill_losses.sh
# TORCH_WHEEL replaces the wheel that pip chooses, which may bring CUDA along.
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
pip=("$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check)
"${pip[@]}" numpy==2.4.6 "${TORCH_WHEEL:-torch==2.13.0}" || exit 2
"${pip[@]}" --no-deps torchdistill==1.1.5 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import importlib
import importlib.metadata
import sys
import types
import warnings

import torch
from torch.nn import functional

root = importlib.metadata.distribution("torchdistill").locate_file("torchdistill")
for parts in ((), ("losses",), ("common",)):  # only the modules asked for are imported
    name = ".".join(("torchdistill", *parts))
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(root.joinpath(*parts))]
losses = importlib.import_module("torchdistill.losses.mid_level")


def of(logits, features=None):
    """Returns the outputs of a network as torchdistill's hooks do."""
    return {"logits": {"output": logits}, "features": {"output": features}}


torch.manual_seed(0)
student, teacher, labels = (
    torch.randn(8, 5),
    torch.randn(8, 5),
    torch.randint(0, 5, (8,)),
)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")

    T, kd = 4.0, {}
    entropy = functional.cross_entropy(student, labels)
    divergence = functional.kl_div(
        (student / T).log_softmax(-1), (teacher / T).softmax(-1), reduction="batchmean"
    )
    for alpha in (1e-9, 0.0):
        path = ("logits", "output")
        loss = losses.KDLoss(*path, *path, temperature=T, alpha=alpha)
        found = loss(of(student), of(teacher), labels)
        formula = alpha * entropy + (1 - alpha) * T**2 * divergence
        kd[alpha] = float(found / formula)
        print(
            f"KDLoss, T = {T:.0f}, alpha {alpha}: {found:.4f}, by the formula {formula:.4f}"
        )

    loss = losses.SPKDLoss("logits", "logits", "batchmean")
    found, by_norm = loss(of(student), of(teacher)), {}
    for order in (2, 1):
        rows = [
            x @ x.T / (x @ x.T).norm(order, dim=1, keepdim=True)
            for x in (student, teacher)
        ]
        by_norm[order] = (rows[0] - rows[1]).pow(2).sum() / 8**2
    print(
        f"SPKDLoss: {found:.4f}, with L2 norms {by_norm[2]:.4f}, "
        f"with L1 norms {by_norm[1]:.4f}"
    )

    path = ("logits", "output", "logits", "output")
    features = ("features", "output", "features", "output")
    loss = losses.DISTPlusLoss(*path, *features)
    wanted = torch.randn(8, 16, 4, 4)
    own, opposite = (loss.channel_relation(x, wanted) for x in (wanted, -wanted))
    print(
        f"DISTPlusLoss, term of channels: of the teacher's features {own:.2f}, "
        f"of their opposite {opposite:.2f}"
    )
    learned = torch.randn(8, 16, 4, 4, requires_grad=True)
    optimizer = torch.optim.Adam([learned], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(of(teacher, learned), of(teacher, wanted)).backward()
        optimizer.step()
    x, y = (one - one.mean(1, keepdim=True) for one in (learned.detach(), wanted))
    correlation = functional.cosine_similarity(x, y, dim=1).mean()
    print(
        "DISTPlusLoss minimized over the student's features: correlation with the "
        f"teacher's {correlation:.2f}"
    )
plain = abs(kd[1e-9] - 1) < 1e-3 and abs(kd[0.0] - 1 / T**2) < 1e-3
norm = torch.isclose(found, by_norm[1]) and by_norm[2] > 2 * found
sign = own > 0.99 and opposite < -0.99 and correlation < -0.9
sys.exit(0 if plain and norm and sign and not caught else 1)
EOF
