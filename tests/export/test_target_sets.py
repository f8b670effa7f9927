"""Tests of prediction sets of targets whose probabilities are not the program's."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from edp import data, export
from edp.errors import InputError
from edp.export import checks, targets

# The pixel of image i is i.
IMAGES = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
CALIBRATION = data.Split(IMAGES, np.array([0, 0, 1, 2], np.int32))
SETS = {"score": "thr", "thresholds": [{"coverage": 0.6, "threshold": 0.6}]}


def classifier(*label_probs):
    """Gives image i label_probs[i] for its label, 0.5 for the next class, of three."""
    rows = [
        np.roll([p, 0.5, 0.5 - p], CALIBRATION.labels[i])
        for i, p in enumerate(label_probs)
    ]
    return lambda images: {"probs": jnp.array(rows)[np.ravel(images)]}


# Every label is the second most probable class, less so at the lower precision.
FLOAT32 = classifier(0.45, 0.42, 0.40, 0.30)
REDUCED = classifier(0.40, 0.38, 0.35, 0.26)


def test_a_target_gets_the_thresholds_of_its_own_probabilities(tmp_path, monkeypatch):
    monkeypatch.setattr(targets, "load", lambda name, place: REDUCED)
    metadata = {"input": {"shape": ["batch", 1, 1, 1]}, "prediction_sets": SETS}
    found = checks.fit_sets(tmp_path, ["onnx"], metadata, CALIBRATION)
    # The ⌈(4 + 1) 0.6⌉ = 3rd smallest of 1 - p.
    assert found == {
        "onnx": {
            "score": "thr",
            "calibration_size": 4,
            "thresholds": [{"coverage": 0.6, "threshold": pytest.approx(0.65)}],
        }
    }

    def coverage(sets):
        outputs = REDUCED(IMAGES)
        measured = checks.measure(outputs, outputs, CALIBRATION.labels, sets)
        return measured["set_coverage"]

    assert coverage(found["onnx"]) == 0.75
    assert coverage(SETS) == 0.25  # the threshold of FLOAT32: below what is promised


def test_an_artifact_has_the_thresholds_of_each_target(tmp_path, monkeypatch):
    # Without a converter: the file stands for the page.
    page = {"web/metadata.json": json.dumps({"prediction_sets": SETS}).encode()}
    monkeypatch.setitem(
        targets.TARGETS, "web", targets.Target((), lambda _: page, None)
    )
    found = {"jax": FLOAT32, "web": REDUCED}
    monkeypatch.setattr(targets, "load", lambda name, place: found[name])
    monkeypatch.setattr(checks, "TOLERANCE", 1.0)

    def write(calibration):
        return export.write_artifact(
            lambda images: {"probs": jnp.ones((images.shape[0], 3)) / 3},
            (1, 1, 1),
            tmp_path / "out",
            classes=["a", "b", "c"],
            details={"prediction_sets": SETS},
            targets=["web"],
            examples=export.Examples(CALIBRATION, CALIBRATION, IMAGES, calibration),
        )

    assert write(CALIBRATION) and not write(CALIBRATION)
    metadata = json.loads((tmp_path / "out/metadata.json").read_text())
    assert metadata["prediction_sets"] == SETS
    own = metadata["target_prediction_sets"]["web"]
    assert own["thresholds"][0]["threshold"] == pytest.approx(0.65)
    of_page = json.loads((tmp_path / "out/web/metadata.json").read_text())
    assert of_page == {"prediction_sets": own}
    coverages = {name: one["set_coverage"] for name, one in metadata["checks"].items()}
    assert coverages == {"jax": 0.75, "web": 0.75}


def test_a_lower_precision_needs_images_to_fit_the_sets_again():
    metadata = {"precision": "int8", "prediction_sets": SETS}
    without = export.Examples(CALIBRATION, CALIBRATION, IMAGES)
    for examples in (None, without):
        with pytest.raises(InputError, match=r"'int8' needs examples\.calibration"):
            checks.check_calibration(metadata, examples)
        checks.check_calibration({**metadata, "precision": "float32"}, examples)
        checks.check_calibration({"precision": "int8"}, examples)
    checks.check_calibration(metadata, without._replace(calibration=CALIBRATION))


def test_the_loaders_return_the_thresholds_of_their_own_target():
    for target in export.TARGETS.values():
        if target.loader is not None:
            source = targets.loader_source(target.loader).decode()
            assert "target_prediction_sets" in source
