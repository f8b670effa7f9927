"""Tests of the measured differences from JAX, and which are refused."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from edp.errors import InputError
from edp.export import checks, onnx_graph, targets


def test_measured_differences_are_those_of_the_outputs():
    probs = np.array([[0.8, 0.2], [0.5, 0.5]])
    other = np.array([[0.7, 0.3], [0.5, 0.5]])
    mutual = np.array([0.1, 0.3])
    measured = checks.measure(
        {"probs": other, "mutual_information": mutual},
        {"probs": probs, "mutual_information": mutual + 0.25},
        np.array([0, 1]),
    )
    assert measured == {
        "images": 2,
        "largest_difference": pytest.approx(0.1),
        "largest_difference_of_scores": pytest.approx(0.25),
        "mutual_information": pytest.approx(0.2),
        "accuracy": pytest.approx(0.5),  # of two equal classes, the first
        "nll": pytest.approx(-(np.log(0.7) + np.log(0.5)) / 2),
        # 0.3 below in one bin, 0.5 above in the other
        "ece": pytest.approx((0.3 + 0.5) / 2),
    }


def test_scores_differ_relative_to_large_ones_and_by_nan():
    probs = np.array([[0.8, 0.2], [0.5, 0.5]])
    energy, entropy = np.array([-1000.0, 2.0]), np.array([0.5, 0.1])

    def measure(change_of_energy, change_of_entropy):
        found = {"entropy": entropy + change_of_entropy}
        found |= {"energy": energy + change_of_energy, "probs": probs}
        reference = {"probs": probs, "entropy": entropy, "energy": energy}
        return checks.measure(found, reference, None)["largest_difference_of_scores"]

    assert measure([1, 0], 0) == pytest.approx(1e-3)
    assert measure([0, 1], 0) == pytest.approx(0.5)
    assert np.isnan(measure([np.nan, 0], 0.3))


@pytest.mark.parametrize(
    ("precision", "measured", "bound", "message"),
    [
        ("float32", (2e-3, 0.0, 1.0), None, r"to='x' differs from JAX by 2.0e-03; acc"),
        ("float32", (0.0, 2e-3, 1.0), None, r"differs from JAX by 2.0e-03; accepted:"),
        ("float32", (np.nan, 0.0, 1.0), None, r"differs from JAX by nan; accepted: up"),
        ("float32", (0.0, np.nan, 1.0), None, r"differs from JAX by nan; accepted: up"),
        ("float16", (0.0, np.nan, 1.0), None, r"outputs that are not finite; accepted"),
        (
            "int8",
            (0.5, 0.5, 1.02),
            0.01,
            r"max_nll_increase=0.01 is less than .*0.0200",
        ),
        ("int8", (0.5, 0.5, np.nan), 0.01, r"max_nll_increase=0.01 is less"),
        ("int8", (0.5, 0.5, 1.02), None, None),
        ("int8", (0.5, 0.5, 1.005), 0.01, None),
        ("float32", (9e-4, 9e-4, 1.0), 0.0, None),
    ],
)
def test_what_differs_too_much_is_refused(precision, measured, bound, message):
    keys = ("largest_difference", "largest_difference_of_scores", "nll")
    arguments = ("x", precision, dict(zip(keys, measured, strict=True)), {"nll": 1.0})
    if message is None:
        checks.refuse_difference(*arguments, bound)
    else:
        with pytest.raises(InputError, match=message):
            checks.refuse_difference(*arguments, bound)


def brightness(images):
    """A program of two classes."""
    bright = images.mean((1, 2)) / 255
    return {"probs": jnp.concatenate([bright, 1 - bright], -1)}


@pytest.mark.parametrize("held_out", [None, np.full((9, 8, 8, 1), 51, np.uint8)])
@pytest.mark.parametrize(
    ("precision", "error", "message"),
    [
        ("int8", 0.0, None),
        (
            "int8",
            0.01,
            r"ONNX differs from JAX by 1.0e-02, before its precision='int8'",
        ),
        ("float16", np.nan, r"differs from JAX by nan, before its precision='float16'"),
        ("float32", 0.01, None),  # the target itself is compared
    ],
)
def test_a_wrong_conversion_does_not_hide_behind_the_precision(
    precision, error, message, held_out, monkeypatch
):
    metadata = {"input": {"shape": ["batch", 8, 8, 1]}, "outputs": {"probs": {}}}
    source = targets.Source(brightness, metadata, precision, None, "")
    source.float32 = b"model"
    examples = None
    if held_out is not None:
        split = types.SimpleNamespace(images=held_out)
        examples = types.SimpleNamespace(held_out=split)

    def run(model, images, name, fixed):
        assert (model, name, fixed) == (b"model", "probs", None)
        assert held_out is None or (images == held_out).all()
        return np.asarray(brightness(images)[name]) + error

    monkeypatch.setattr(onnx_graph, "run", run)
    if message is None:
        checks.check_conversion(source, examples)
    else:
        with pytest.raises(InputError, match=message):
            checks.check_conversion(source, examples)


def test_a_precision_without_onnx_needs_no_conversion():
    checks.check_conversion(targets.Source(None, {}, "bfloat16", None, ""), None)
