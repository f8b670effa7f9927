"""Tests of the loader that each artifact contains."""

import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from exported_runs import WITHOUT_EDP

from edp import metrics
from edp.evaluation import prediction_sets
from edp.export import loader
from edp.metrics import conformal
from edp.runtime import storage


def test_the_loader_needs_nothing_of_this_project(experiment, exported):
    source = (exported["single"] / "load.py").read_text()
    assert len(source.splitlines()) < 85
    program = (
        f"{WITHOUT_EDP}sys.modules['PIL'] = None\n"
        "import load, numpy\n"
        "predict, metadata = load.load()\n"
        "found = predict(numpy.load(sys.argv[1]))\n"
        "numpy.save(sys.argv[2], found['probs'])\n"
    )
    directory = exported["single"].parent
    images = experiment.data.dataset.test.images[:7]
    np.save(directory / "images.npy", images)
    subprocess.run(
        [sys.executable, "-c", program, "../images.npy", "../probs.npy"],
        cwd=exported["single"],
        check=True,
    )
    predict, _ = loader.load(exported["single"])
    probs = np.load(directory / "probs.npy")
    np.testing.assert_allclose(probs, predict(images)["probs"], atol=1e-5)


def test_a_reader_that_is_too_old_is_told_what_it_needs(exported, tmp_path):
    shutil.copytree(exported["single"], tmp_path / "copy")
    path, metadata = tmp_path / "copy/model.jax", tmp_path / "copy/metadata.json"
    program = path.read_bytes()
    start = program.index(b"ML\xefR") + 20  # of the serialised program: beyond repair
    path.write_bytes(program[:start] + b"\xff" * 8 + program[start + 8 :])
    versions = storage.read_json(metadata)["versions"]
    assert versions["jax"] == jax.__version__ and versions["calling_convention"] >= 10
    versions["jax"] = "99.1"
    found = storage.read_json(metadata) | {"versions": versions}
    storage.write_json(metadata, found)
    with pytest.raises(ValueError, match=r"deserialize.*it needs jax >= 99.1, which"):
        loader.load(tmp_path / "copy")


def test_images_of_another_kind_are_refused(exported):
    predict, _ = loader.load(exported["single"])
    with pytest.raises(ValueError, match=r"value >= 1 for dimension variable 'batch'"):
        predict(np.zeros((0, 8, 8, 1), np.uint8))
    for images in (np.zeros((1, 8, 8, 1), np.float32), np.zeros((1, 8, 9, 1), "u1")):
        with pytest.raises((ValueError, TypeError)):
            predict(images)


@pytest.mark.parametrize("score", conformal.SCORES)
def test_the_sets_of_the_loader_are_those_of_the_metrics(score):
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(6), size=300), rng.integers(6, size=100)
    fitted = prediction_sets.fit_thresholds(probs[:100], labels, score, (0.9, 0.5))
    metadata = {"prediction_sets": fitted}
    for one in fitted["thresholds"]:
        sets = loader.prediction_sets(np.float32(probs), metadata, one["coverage"])
        scores = conformal.SCORES[score](probs)
        expected = metrics.prediction_sets(scores, one["threshold"])
        np.testing.assert_array_equal(sets, expected)
    assert len(fitted["thresholds"]) == 2 and fitted["calibration_size"] == 100
    with pytest.raises(ValueError, match=r"coverage=0.8 .* accepted: 0.9, 0.5"):
        loader.prediction_sets(probs, metadata, 0.8)
