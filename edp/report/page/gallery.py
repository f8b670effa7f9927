"""Gallery of perturbed inputs with the members' predictions."""

import base64
import io
import pathlib
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from edp.report.files import load_arrays, read
from edp.report.page.markup import Section, figure, paragraph, render

_GALLERY_BYTES = 1_400_000


def gallery_section(path: pathlib.Path) -> Section:
    """Renders `gallery.npz`, up to about 1.4 MB of examples."""
    keys = ("names", "images", "probs", "labels", "class_names")
    arrays, why = read(path, load_arrays(*keys))
    if arrays is None:
        return Section(left_out=f"the gallery of perturbed inputs: {why}")
    names, images, probs, labels, class_names = arrays
    names, class_names = [str(n) for n in names], [str(c) for c in class_names]
    changes = images[1:] - images[:1]
    gain = _gain(changes)
    rows, size = [], 0
    for i, label in enumerate(labels):
        views = []
        for p, name in enumerate(names):
            pictures = [images[p, i]]
            if p:
                pictures.append(0.5 + gain * changes[p - 1, i])
            uris = [image_uri(picture) for picture in pictures]
            views.append(_view(name, uris, probs[p, :, i], int(label), class_names))
        row = render(
            "example.html", number=i + 1, label=class_names[label], views=views
        )
        size += len(row)
        if rows and size > _GALLERY_BYTES:
            break
        rows.append(row)
    left = Markup()
    if len(rows) < len(labels):
        left = paragraph(f"The first {len(rows)} of {len(labels)} examples.", "note")
    html = figure(
        "Clean inputs and each perturbation of them. Right of a perturbed image: the "
        f"change, {gain:g} times amplified around grey. Below: each member's predicted "
        "class and its probability, bold and green if it is the label, orange if not. "
        "Look for images that seem unchanged but on which the members disagree.",
        *rows,
        left,
    )
    return Section(html)


def image_uri(image: np.ndarray, limit: int = 64) -> str:
    """Encodes one image as a PNG data URI.

    Args:
      image: float [H, W, C] in [0, 1] (clipped); one channel is grey; of more
        than three channels the first three are shown.
      limit: images are scaled down to at most this many pixels a side.
    """
    channels = 3 if image.shape[-1] >= 3 else 1
    pixels = np.rint(np.clip(image[..., :channels], 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    picture.thumbnail((limit, limit), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _view(
    name: str, uris: list[str], probs: np.ndarray, label: int, class_names: list[str]
) -> dict[str, Any]:
    """Returns one image, its change, and the members' predictions `probs` [M, K]."""
    members = [
        {"name": class_names[top], "prob": float(row[top]), "right": top == label}
        for row, top in zip(probs, probs.argmax(-1).tolist(), strict=True)
    ]
    described = ", ".join(f"{m['name']} {m['prob']:.2f}" for m in members)
    alts = (f"{name}; members predict {described}", f"change by {name}")
    return {
        "name": name,
        "pictures": list(zip(uris, alts, strict=False)),
        "members": members,
    }


def _gain(changes: np.ndarray) -> float:
    """Returns the largest round gain that keeps 99 % of changes within ±0.5."""
    if not changes.size:
        return 1.0
    large = float(np.quantile(np.abs(changes), 0.99))
    gains = (1, 2, 3, 5, 10, 20, 30, 50, 100)
    return max((g for g in gains if g * large <= 0.5), default=1)
