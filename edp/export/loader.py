"""Loads the classifier beside this file; needs jax, numpy and flatbuffers alone."""

import json
import pathlib

import jax
import jax.export


def load(directory=pathlib.Path(__file__).parent):
    """Returns images uint8 [B, H, W, C] -> {name: array [B, ...]}; and the metadata."""
    directory = pathlib.Path(directory)
    exported = jax.export.deserialize((directory / "model.jax").read_bytes())
    metadata = json.loads((directory / "metadata.json").read_text(encoding="utf-8"))
    return jax.jit(exported.call), metadata  # compiled once for each batch size
