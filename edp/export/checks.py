"""Compares the targets of an export with JAX, each run by the program beside it."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from edp import data, metrics
from edp.errors import InputError
from edp.evaluation import prediction_sets
from edp.export import loader, onnx_graph, targets
from edp.runtime import storage

# Name of the program in float32, where that of 'jax' is in bfloat16.
REFERENCE = "float32"
# Largest accepted difference between a float32 target and JAX, in any output.
TOLERANCE = 1e-3
# Random images, where none are given.
_RANDOM = 7


def check(
    place: pathlib.Path,
    names: Sequence[str],
    precision: str,
    metadata: Mapping[str, Any],
    examples: targets.Examples | None,
    max_nll_increase: float | None,
    program: Callable[..., Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Runs the targets in a directory on the same images.

    Args:
      place: the directory, with `metadata.json`.
      names: of the targets, 'jax' among them.
      precision: of the targets other than 'jax'.
      metadata: the contents of `metadata.json`.
      examples: the images to run them on; None: random ones, without labels.
      max_nll_increase: see `refuse_difference`.
      program: in float32, to compare with; None: the target 'jax'.

    Returns:
      Keys of the metadata: `checks`, by target what `measure` returns, with that of
      `program` under 'float32'; and with calibration images `target_prediction_sets`,
      from `fit_sets`.

    Raises:
      InputError: as `refuse_difference`.
    """
    size, *_ = metadata["input"]["shape"]
    fixed = size if isinstance(size, int) else None
    if examples is None:
        images, labels = _random_images(metadata, fixed), None
    else:
        images, labels = examples.held_out.images[:], examples.held_out.labels

    base = REFERENCE if program else targets.JAX
    found = _run(program or targets.load(base, place), images, fixed)
    reference = {key: found[key] for key in metadata["outputs"]}
    sets = metadata.get("prediction_sets")
    others = [name for name in names if name != base]
    own_sets = {}
    if sets and examples is not None and examples.calibration is not None:
        own_sets = fit_sets(place, others, metadata, examples.calibration)
    measured = {base: measure(reference, reference, labels, sets)}
    for name in others:
        found = _run(targets.load(name, place), images, fixed)
        own = own_sets.get(name, sets)
        measured[name] = measure(found, reference, labels, own)
    refuse_differences(names, precision, measured, max_nll_increase)
    result: dict[str, Any] = {"checks": measured}
    return result | ({"target_prediction_sets": own_sets} if own_sets else {})


def check_calibration(
    metadata: Mapping[str, Any], examples: targets.Examples | None
) -> None:
    """Raises an InputError where prediction sets cannot be fitted to a target.

    Args:
      metadata: the contents of `metadata.json`.
      examples: of the export.
    """
    missing = examples is None or examples.calibration is None
    if missing and "prediction_sets" in metadata and metadata["precision"] != "float32":
        raise InputError(
            f"precision={metadata['precision']!r} needs examples.calibration, labelled "
            "images to fit the thresholds of the prediction sets again, which are of "
            "float32; accepted: these, precision='float32', or no prediction_sets"
        )


def check_conversion(source: targets.Source, examples: targets.Examples | None) -> None:
    """Compares the program in ONNX with JAX before the precision was reduced.

    `check` compares targets in float32. Others may differ from JAX, which would hide a
    conversion that went wrong.

    Args:
      source: after its targets were written.
      examples: the images to compare on; None: random ones.

    Raises:
      InputError: if an output differs by more than `TOLERANCE`.
    """
    if source.precision == "float32" or "float32" not in vars(source):
        return
    images = _random_images(source.metadata, source.fixed)
    if examples is not None:
        images = examples.held_out.images[:]
    names = list(source.metadata["outputs"])
    model, fixed = source.float32, source.fixed
    found = {name: onnx_graph.run(model, images, name, fixed) for name in names}
    measured = measure(found, _run(jax.jit(source.program), images, fixed), None)
    largest = np.maximum(  # NaN where one is
        measured["largest_difference"], measured["largest_difference_of_scores"]
    )
    if not largest <= TOLERANCE:
        raise InputError(
            f"the program in ONNX differs from JAX by {largest:.1e}, before its "
            f"precision={source.precision!r}; accepted: up to {TOLERANCE:g}"
        )


def _random_images(metadata: Mapping[str, Any], fixed: int | None) -> np.ndarray:
    rng = np.random.default_rng(0)
    shape = (fixed or _RANDOM, *metadata["input"]["shape"][1:])
    return rng.integers(256, size=shape, dtype=np.uint8)


def fit_sets(
    place: pathlib.Path,
    names: Sequence[str],
    metadata: Mapping[str, Any],
    calibration: data.Split,
) -> dict[str, Any]:
    """Fits the thresholds of prediction sets to the probabilities of each target.

    Those of the program in float32 would not guarantee the coverage in 8 bits. The
    page of the target 'web' gets its own.

    Args:
      place: the directory, with `metadata.json`.
      names: of the targets, but for 'jax' where it is in float32.
      metadata: the contents of `metadata.json`, with the thresholds of the program.
      calibration: images and labels that fitted neither weights nor temperatures.

    Returns:
      By target, what `fit_thresholds` of `edp.evaluation.prediction_sets` returns.
    """
    size, *_ = metadata["input"]["shape"]
    fixed = size if isinstance(size, int) else None
    of_program = metadata["prediction_sets"]
    coverages = [one["coverage"] for one in of_program["thresholds"]]
    images, labels = calibration.images[:], calibration.labels
    found = {}
    for name in names:
        probs = _run(targets.load(name, place), images, fixed)["probs"]
        found[name] = prediction_sets.fit_thresholds(
            np.asarray(probs, np.float64), labels, of_program["score"], coverages
        )
    if "web" in found:
        path = place / "web" / "metadata.json"
        page = storage.read_mapping(path)
        storage.write_json(path, {**page, "prediction_sets": found["web"]})
    return found


def _run(
    classify: Callable[..., Mapping[str, Any]], images: np.ndarray, fixed: int | None
) -> dict[str, np.ndarray]:
    """Returns the outputs of a target for images, computed in batches."""
    parts = [classify(one) for one in onnx_graph.batches(images, fixed)]
    return {
        key: np.concatenate([np.asarray(one[key]) for one in parts])[: len(images)]
        for key in parts[0]
    }


def measure(
    found: Mapping[str, Any],
    reference: Mapping[str, Any],
    labels: Any,
    sets: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compares the outputs of a target with those of JAX.

    Args:
      found: {name: [N, ...]}.
      reference: the same of JAX.
      labels: integers [N]; None: unknown.
      sets: thresholds of the target's prediction sets; None: it has none.

    Returns:
      `images` (N), `largest_difference` of `probs` and of the scores (of those above
      1, relative to them); with labels also `accuracy`, `nll` and `ece` of the
      calibrated probabilities, and `set_coverage`, the fraction of prediction sets
      for the first coverage that contain the label.
    """

    def difference(name):
        wanted = np.asarray(reference[name], np.float64)
        return float(
            np.max(np.abs(found[name] - wanted) / np.maximum(1, np.abs(wanted)))
        )

    scores_differ = [difference(name) for name in reference if name != "probs"]
    probs = np.asarray(found["probs"], np.float64)
    result: dict[str, Any] = {
        "images": len(probs),
        "largest_difference": difference("probs"),
        "largest_difference_of_scores": float(np.max(scores_differ, initial=0.0)),
    }
    if "mutual_information" in found:
        mean = np.asarray(found["mutual_information"], np.float64).mean()
        result["mutual_information"] = float(mean)
    if labels is not None:
        scores = (metrics.accuracy, metrics.nll, metrics.ece)
        result |= {score.__name__: float(score(probs, labels)) for score in scores}
        if sets and sets["thresholds"]:
            coverage = sets["thresholds"][0]["coverage"]
            inside = loader.prediction_sets(probs, {"prediction_sets": sets}, coverage)
            covered = inside[np.arange(len(labels)), labels]
            result["set_coverage"] = float(covered.mean())
    return result


def refuse_differences(
    names: Sequence[str],
    reduced: str,
    measured: Mapping[str, Any],
    max_nll_increase: float | None,
) -> None:
    """Raises an InputError where one of some targets differs from JAX by too much.

    Args:
      names: of the targets.
      reduced: the precision of those other than 'jax'.
      measured: from `check`.
      max_nll_increase: see `refuse_difference`.
    """
    base = REFERENCE if REFERENCE in measured else targets.JAX
    for name in names:
        if name in measured and name != base:
            refuse_difference(
                name, reduced, measured[name], measured[base], max_nll_increase
            )


def refuse_difference(
    name: str,
    reduced: str,
    measured: Mapping[str, Any],
    reference: Mapping[str, Any],
    max_nll_increase: float | None,
) -> None:
    """Raises an InputError where a target differs from JAX by too much.

    Args:
      name: of the target.
      reduced: its precision.
      measured: from `measure`.
      reference: the same of JAX.
      max_nll_increase: the accepted increase of the NLL; None: any.
    """
    numbers = json.dumps(dict(measured))
    largest = np.maximum(  # NaN where one is
        measured["largest_difference"], measured["largest_difference_of_scores"]
    )
    if reduced == "float32" and not largest <= TOLERANCE:
        raise InputError(
            f"to={name!r} differs from JAX by {largest:.1e}; accepted: up to "
            f"{TOLERANCE:g}. Measured: {numbers}"
        )
    if not np.isfinite(largest):
        raise InputError(
            f"to={name!r} at precision={reduced!r} has outputs that are not finite; "
            f"accepted: precision='float32'. Measured: {numbers}"
        )
    if max_nll_increase is not None and "nll" in measured:
        increase = measured["nll"] - reference["nll"]
        if not increase <= max_nll_increase:
            raise InputError(
                f"max_nll_increase={max_nll_increase:g} is less than the increase of "
                f"to={name!r} at precision={reduced!r}, {increase:.4f}; accepted: a "
                f"higher one, or precision='float32'. Measured: {numbers}"
            )
