"""scikit-learn's digits, written as files of several sources."""

import numpy as np
from PIL import Image
from sklearn import datasets


def digits_by_class():
    """Returns 120 training and 60 test digits, ordered by class, as uint8."""
    digits = datasets.load_digits()
    images = (digits.images[..., None] * (255 / 16)).astype(np.uint8)
    parts = {}
    for part, chosen in {"train": range(120), "test": range(120, 180)}.items():
        chosen = sorted(chosen, key=lambda i: digits.target[i])
        parts[part] = images[chosen], digits.target[chosen]
    return parts


def write_npz(root, parts):
    arrays = {}
    for part, (images, labels) in parts.items():
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
    np.savez(root / "digits.npz", **arrays)
    return ["--config.data.source=npz", f"--config.data.path={root / 'digits.npz'}"]


def write_folder(root, parts):
    for part, (images, labels) in parts.items():
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = root / "digits" / part / str(label) / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(path)
    return ["--config.data.source=folder", f"--config.data.path={root / 'digits'}"]
