"""Writes a folder that classifies images in a browser, from any static server."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

# The version that the page was tested with.
RUNTIME = "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/"
_KEYS = ("classes", "input", "outputs", "preparation", "prediction_sets", "name")
_PAGE = pathlib.Path(__file__).parent / "page"


def files(model: bytes, metadata: Mapping[str, Any], runtime: str) -> dict[str, bytes]:
    """Returns the files of the folder `web` by name.

    Args:
      model: ONNX.
      metadata: the contents of `metadata.json`.
      runtime: address of the files of onnxruntime-web, absolute or relative to the
        page; ends with "/".
    """
    kept = {key: metadata[key] for key in _KEYS if key in metadata}
    kept["runtime"] = runtime
    page = {f"web/{p.name}": p.read_bytes() for p in sorted(_PAGE.iterdir())}
    return {
        **page,
        "web/metadata.json": json.dumps(kept, indent=2, allow_nan=False).encode(),
        "web/model.onnx": model,
    }
