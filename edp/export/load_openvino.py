"""Loads the classifier beside this file; needs only openvino and numpy.

import load_openvino
classify, metadata = load_openvino.load()
outputs = classify(images)  # uint8 [B, H, W, C]
sets = load_openvino.prediction_sets(outputs["probs"], metadata, coverage=0.9)
"""

import json
import pathlib

import numpy as np
import openvino


def load(directory=pathlib.Path(__file__).parent):
    """Returns images uint8 [B, H, W, C] -> {name: array [B, ...]}; and the metadata."""
    directory = pathlib.Path(directory)
    metadata = json.loads((directory / "metadata.json").read_text(encoding="utf-8"))
    sets = metadata.get("target_prediction_sets", {})
    if "openvino" in sets:  # fitted to the probabilities of this file
        metadata["prediction_sets"] = sets["openvino"]
    # By default OpenVINO computes in bfloat16 on the CPUs that have it.
    precision = "bf16" if metadata.get("precision") == "bfloat16" else "f32"
    options = {"INFERENCE_PRECISION_HINT": precision}
    model = openvino.Core().compile_model(directory / "model.xml", "CPU", options)
    names = list(metadata["outputs"])
    shape = tuple(metadata["input"]["shape"][1:])

    def classify(images):
        images = np.asarray(images)
        # OpenVINO would convert other numbers to uint8.
        if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
            raise ValueError(
                f"images is {images.dtype} {list(images.shape)}; accepted: uint8 "
                f"[B, {', '.join(map(str, shape))}] with B at least 1"
            )
        found = model(images)
        return {name: found[name].copy() for name in names}

    return classify, metadata
