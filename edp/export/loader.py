"""Loads the classifier beside this file; needs only jax, numpy and flatbuffers.

import load
classify, metadata = load.load()
outputs = classify(images)  # uint8 [B, H, W, C]
sets = load.prediction_sets(outputs["probs"], metadata, coverage=0.9)
"""

import json
import pathlib

import jax
import jax.export
import numpy as np


def load(directory=pathlib.Path(__file__).parent):
    """Returns images uint8 [B, H, W, C] -> {name: array [B, ...]}; and the metadata."""
    directory = pathlib.Path(directory)
    metadata = json.loads((directory / "metadata.json").read_text(encoding="utf-8"))
    sets = metadata.get("target_prediction_sets", {})
    if "jax" in sets:  # fitted to the probabilities of this file
        metadata["prediction_sets"] = sets["jax"]
    written = metadata["versions"]["jax"]
    try:
        exported = jax.export.deserialize((directory / "model.jax").read_bytes())
        if written != jax.__version__:
            exported.mlir_module()  # parses the program: an older jax may not read it
    except Exception as error:
        raise ValueError(
            f"model.jax cannot be read by jax {jax.__version__} ({error}); it needs "
            f"jax >= {written}, which wrote it, and is damaged if that cannot read it"
        ) from error
    return jax.jit(exported.call), metadata  # compiled once for each batch size


def prediction_sets(probs, metadata, coverage):
    """Returns the classes in the prediction set of each image, booleans [B, K].

    The sets contain the label of a new image with a probability of at least
    `coverage`, if it is drawn as the calibration images were; one of them at least.

    Args:
      probs: the output `probs` [B, K].
      metadata: from `load`.
      coverage: see `set_threshold`.
    """
    threshold = set_threshold(metadata, coverage)
    score = metadata["prediction_sets"]["score"]
    probs = np.asarray(probs, np.float64)
    if score == "thr":
        scores = 1 - probs
    else:  # aps and raps: the probability of the classes up to and including this one
        order = np.argsort(-probs, axis=1, kind="stable")
        ordered = np.take_along_axis(probs, order, axis=1).cumsum(axis=1)
        if score == "raps":
            ordered += 0.1 * np.arange(probs.shape[1])
        scores = np.empty_like(probs)
        np.put_along_axis(scores, order, ordered, axis=1)
    # The program computes in float32, the thresholds are of float64.
    sets = scores <= threshold + 1e-6
    sets[np.arange(len(sets)), scores.argmin(axis=1)] = True
    return sets


def set_threshold(metadata, coverage):
    """Returns the largest score of a class inside a set.

    Args:
      metadata: from `load`.
      coverage: one of those in `metadata["prediction_sets"]["thresholds"]`.

    Raises:
      ValueError: the artifact has no threshold for this coverage.
    """
    fitted = metadata.get("prediction_sets", {"thresholds": []})
    thresholds = {t["coverage"]: t["threshold"] for t in fitted["thresholds"]}
    if coverage not in thresholds:
        accepted = ", ".join(map(str, thresholds)) or "none, without calibration images"
        raise ValueError(f"coverage={coverage} has no threshold; accepted: {accepted}")
    return thresholds[coverage]
