"""Loads the classifier beside this file; needs only onnxruntime and numpy.

import load_onnx
classify, metadata = load_onnx.load()
outputs = classify(images)  # uint8 [B, H, W, C]
sets = load_onnx.prediction_sets(outputs["probs"], metadata, coverage=0.9)
"""

import json
import pathlib

import numpy as np
import onnxruntime


def load(directory=pathlib.Path(__file__).parent):
    """Returns images uint8 [B, H, W, C] -> {name: array [B, ...]}; and the metadata."""
    directory = pathlib.Path(directory)
    metadata = json.loads((directory / "metadata.json").read_text(encoding="utf-8"))
    sets = metadata.get("target_prediction_sets", {})
    if "onnx" in sets:  # fitted to the probabilities of this file
        metadata["prediction_sets"] = sets["onnx"]
    session = onnxruntime.InferenceSession(
        directory / "model.onnx", providers=["CPUExecutionProvider"]
    )
    names = list(metadata["outputs"])

    def classify(images):
        images = np.asarray(images)
        if not len(images):
            raise ValueError("images has no image; accepted: at least one")
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return classify, metadata
