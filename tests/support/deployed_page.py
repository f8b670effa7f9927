"""Runs the page that deploys a student of other frameworks' networks."""

import sys

import documents
import numpy as np
from sklearn import datasets

from edp import metrics

PAGE = documents.ROOT / "docs/other-frameworks.md"


def deploy(nets, directory, monkeypatch, replaced=None):
    """Runs the blocks that train, score and deploy a student; returns their names."""
    files = documents.files(PAGE)
    lines = [line for line in files["deploy.py"].splitlines() if line.strip()]
    assert len(lines) - 1 <= 25  # without the name of the file
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).reshape(-1, 8, 8, 1).astype(np.float32)
    parts = [
        {"image": images[i : i + 64], "label": labels[i : i + 64]} for i in (0, 64, 128)
    ]
    names = dict(zip(("train", "validation", "test"), parts, strict=True))
    names |= {"nets": nets, "pixels": np.uint8(np.rint(images[128:192] * 255))}
    block = files["deploy.py"]
    if replaced:
        assert replaced[0] in block and replaced[1] in PAGE.read_text("utf-8")
        block = block.replace(*replaced)
    monkeypatch.chdir(directory)
    exec(block, names)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [*sys.path])
        exec(files["predict.py"], names)
        sys.modules.pop("load")
    # The artifact predicts as the student did, at its temperature.
    (probs, _), temperature = names["found"][1], names["rows"][1]["temperature"]
    expected = metrics.apply_temperature(probs, temperature)
    np.testing.assert_allclose(names["probs"], expected, atol=5e-3)
    assert [row["model"] for row in names["rows"]] == ["teachers", "student"]
    return names
