"""Loads the classifier beside this file; needs only ai-edge-litert and numpy.

import load_litert
classify, metadata = load_litert.load()
outputs = classify(images)  # uint8 [B, H, W, C]
sets = load_litert.prediction_sets(outputs["probs"], metadata, coverage=0.9)
"""

import json
import os
import pathlib
import threading

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def load(directory=pathlib.Path(__file__).parent, num_threads=None):
    """Returns images uint8 [B, H, W, C] -> {name: array [B, ...]}; and the metadata."""
    directory = pathlib.Path(directory)
    metadata = json.loads((directory / "metadata.json").read_text(encoding="utf-8"))
    sets = metadata.get("target_prediction_sets", {})
    if "litert" in sets:  # fitted to the probabilities of this file
        metadata["prediction_sets"] = sets["litert"]
    model = Interpreter(
        str(directory / "model.tflite"), num_threads=num_threads or os.cpu_count()
    )
    fixed, *shape = metadata["input"]["shape"]
    names = [name.removeprefix("batch_") for name in model.get_signature_list()]
    sizes = sorted(map(int, names), reverse=True)
    lock = threading.Lock()  # the model computes one batch at a time
    run = {size: model.get_signature_runner(f"batch_{size}") for size in sizes}

    def classify(images):
        images = np.asarray(images)
        accepted = "at least 1" if fixed == "batch" else fixed
        if (
            images.dtype != np.uint8
            or list(images.shape[1:]) != shape
            or not len(images)
            or fixed not in ("batch", len(images))
        ):
            raise ValueError(
                f"images is {images.dtype} {list(images.shape)}; accepted: uint8 "
                f"[B, {', '.join(map(str, shape))}] with B {accepted}"
            )
        parts, start = [], 0
        with lock:
            while start < len(images):  # the largest size of the model that fits
                size = next(n for n in sizes if n <= len(images) - start)
                parts.append(run[size](images=images[start : start + size]))
                start += size
        return {n: np.concatenate([p[n] for p in parts]) for n in metadata["outputs"]}

    return classify, metadata
