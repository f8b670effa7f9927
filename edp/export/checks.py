"""Compares the targets of an export with JAX, each run by the program beside it."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edp import metrics
from edp.errors import InputError
from edp.export import onnx_graph, targets

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
    """Runs the targets in a directory on the same images; returns what `measure` does.

    Args:
      place: the directory, with `metadata.json`.
      names: of the targets, 'jax' among them.
      precision: of the targets other than 'jax'.
      metadata: the contents of `metadata.json`.
      examples: the images to run them on; None: random ones, without labels.
      max_nll_increase: see `refuse_difference`.
      program: in float32, to compare with; None: the target 'jax'.

    Returns:
      By target, the numbers; those of `program` under 'float32'.

    Raises:
      InputError: as `refuse_difference`.
    """
    size, *shape = metadata["input"]["shape"]
    fixed = size if isinstance(size, int) else None
    if examples is None:
        rng = np.random.default_rng(0)
        images = rng.integers(256, size=(fixed or _RANDOM, *shape), dtype=np.uint8)
        labels = None
    else:
        images, labels = examples.held_out.images[:], examples.held_out.labels

    def outputs(classify):
        parts = [classify(one) for one in onnx_graph.batches(images, fixed)]
        return {
            key: np.concatenate([np.asarray(one[key]) for one in parts])[: len(images)]
            for key in metadata["outputs"]
        }

    base = REFERENCE if program else targets.JAX
    reference = outputs(program or targets.load(base, place))
    measured = {base: measure(reference, reference, labels)}
    for name in names:
        if name != base:
            classify = targets.load(name, place)
            measured[name] = measure(outputs(classify), reference, labels)
    refuse_differences(names, precision, measured, max_nll_increase)
    return measured


def measure(
    found: Mapping[str, Any], reference: Mapping[str, Any], labels: Any
) -> dict[str, Any]:
    """Compares the outputs of a target with those of JAX.

    Args:
      found: {name: [N, ...]}.
      reference: the same of JAX.
      labels: integers [N]; None: unknown.

    Returns:
      `images` (N), `largest_difference` of `probs` and of the scores (of those above
      1, relative to them); with labels also `accuracy`, `nll` and `ece` of the
      calibrated probabilities.
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
