#!/usr/bin/env bash
# TorchCP's SAPS without randomisation gives sets that miss the label, most of them empty.
#
# Library:   torchcp 1.2.1, with torch 2.13.0, scikit-learn 1.9.1 and numpy 2.4.6; Linux.
# Expected:  prediction sets that contain the label of a new example with a probability of at
#            least 1 - alpha. That needs one score for the label of a calibration example
#            and for each class of a new one. SAPS (Huang et al. 2024, arXiv 2310.06430)
#            scores a class of rank 1 with u p_max, and one of rank r with
#            p_max + (r - 2 + u) w; without randomisation, u is a constant.
# Happens:   with randomized=False, a label of rank 1 has the score 0 in calibration (u = 0),
#            and the class of rank 1 has the score p_max in a set (u = 1). Other ranks agree.
#            The more accurate the network, the lower the coverage: from an accuracy of
#            1 - alpha on, the threshold is 0 and every set is empty. There is no warning.
# Way round: calibrate with the scores of all classes, scores(logits)[range(n), labels], or
#            randomized=True.
# Seen (1,000 calibration and 10,000 test examples, 5 classes, alpha = 0.1, weight 0.2):
#   accuracy 67 %, randomized=True             covers 91.1 %, 2.21 classes, empty 0.6 %
#   accuracy 67 %, randomized=False            covers 84.7 %, 1.98 classes, empty 5.3 %
#   accuracy 67 %, randomized=False, way round covers 90.3 %, 2.13 classes, empty 1.0 %
#   accuracy 92 %, randomized=True             covers 91.1 %, 1.17 classes, empty 6.2 %
#   accuracy 92 %, randomized=False            covers 0.0 %, 0.00 classes, empty 100.0 %
#   accuracy 92 %, randomized=False, way round covers 91.0 %, 1.17 classes, empty 6.5 %
#
# The classes are imported from their own modules, as the package as a whole needs
# transformers, torch-geometric and torchsort.
# Usage: [TORCH_WHEEL=torch.whl] [PYTHON=python3.12] bash findings/torchcp_saps.sh
# TORCH_WHEEL replaces the wheel that pip chooses, which may bring CUDA along.
# Exits with 0 if this still happens, 1 if not, 2 if the packages do not install.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
pip=("$work/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check)
"${pip[@]}" numpy==2.4.6 scikit-learn==1.9.1 tqdm==4.70.1 \
  "${TORCH_WHEEL:-torch==2.13.0}" || exit 2
"${pip[@]}" --no-deps torchcp==1.2.1 || exit 2
cd "$work"
"$work/venv/bin/python" - << 'EOF'
import importlib
import importlib.metadata
import sys
import types
import warnings

import torch

root = importlib.metadata.distribution("torchcp").locate_file("torchcp")
for parts in (
    (),
    ("classification",),
    ("classification", "score"),
    ("classification", "predictor"),
):  # packages of which only the modules asked for are imported
    name = ".".join(("torchcp", *parts))
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(root.joinpath(*parts))]
SAPS = importlib.import_module("torchcp.classification.score.saps").SAPS
split = importlib.import_module("torchcp.classification.predictor.split")
quantile = importlib.import_module("torchcp.utils.common").calculate_conformal_value

SIZE, TEST, CLASSES, ALPHA = 1000, 10_000, 5, 0.1
warnings.simplefilter("ignore", DeprecationWarning)
rows = torch.arange(SIZE)
seen = {}
with warnings.catch_warnings(record=True) as caught:
    for scale in (2.2, 10.0):
        generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        logits = scale * torch.randn(SIZE + TEST, CLASSES, generator=generator)
        labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        accuracy = 100 * (logits.argmax(-1) == labels).double().mean()
        for name, randomized, mend in (
            ("randomized=True", True, False),
            ("randomized=False", False, False),
            ("randomized=False, way round", False, True),
        ):
            scores = SAPS(randomized=randomized, weight=0.2)
            predictor = split.SplitPredictor(scores, alpha=ALPHA)
            predictor.calculate_threshold(logits[:SIZE], labels[:SIZE])
            if mend:
                right = scores(logits[:SIZE])[rows, labels[:SIZE]]
                predictor.q_hat = quantile(right, ALPHA)
            sets = predictor.predict_with_logits(logits[SIZE:]).bool()
            covered = sets[torch.arange(TEST), labels[SIZE:]].double().mean()
            sizes = sets.sum(1).double()
            empty = (sizes == 0).double().mean()
            seen[scale, name] = float(covered)
            print(
                f"accuracy {accuracy:.0f} %, {name:27} covers {100 * covered:.1f} %, "
                f"{sizes.mean():.2f} classes, empty {100 * empty:.1f} %"
            )
wrong = {key for key in seen if key[1] == "randomized=False"}
low = all(seen[key] < 0.85 for key in wrong)
fair = all(seen[key] > 0.88 for key in seen if key not in wrong)
others = [one for one in caught if one.category is not DeprecationWarning]
sys.exit(0 if low and fair and not others else 1)
EOF
