"""Tests of exports from a run: equal predictions, metadata and refusals."""

import contextlib
import importlib.util
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from exported_runs import NAMES, TEMPERATURE, create_evaluated

from configs import digits
from edp import metrics, students
from edp.errors import InputError
from edp.evaluation import predictions
from edp.evaluation.predictor import Predictors
from edp.experiment import open_run, restore
from edp.export import from_run, loader, targets
from edp.metrics import uncertainty
from edp.runtime import storage


def in_process(experiment, name):
    """Returns member probabilities of the test images, and the uncertainty scores."""
    path = experiment.run.workdir / f"predictions/{name}.npz"
    probs = predictions.load_predictions(path).test_probs
    if name == "teachers":
        images = experiment.data.dataset.test.images
        return probs, uncertainty.all_scores(
            Predictors(experiment)[name].logits(images)
        )
    student, variables = restore.load_student(experiment.run, None, name)
    x = experiment.data.dataset.test.images.astype(np.float32) / 255
    return probs, jax.jit(student.uncertainty)(variables, x)


@pytest.mark.parametrize("name", ["teachers", *students.STUDENTS])
def test_exported_predictions_are_those_of_the_evaluation(name, experiment, exported):
    images = experiment.data.dataset.test.images
    probs, scores = in_process(experiment, name)
    wanted = metrics.apply_temperature(
        probs.astype(np.float64).mean(axis=0), TEMPERATURE
    )
    assert np.ptp(wanted, axis=0).max() > 0.02  # networks that tell images apart
    # The sampler's 13 steps amplify rounding.
    rtol, atol = (1e-3, 1e-4) if name == "flow" else (1e-5, 1e-5)
    predict, metadata = loader.load(exported[name])
    assert next(iter(metadata["outputs"])) == "probs"
    for size in (1, 7, 256):
        found = predict(images[:size])
        assert found.keys() == metadata["outputs"].keys() == {"probs", *scores}
        np.testing.assert_allclose(found["probs"], wanted[:size], rtol=0, atol=atol)
        for key, values in scores.items():
            assert found[key].shape == (size,)
            np.testing.assert_allclose(
                found[key], values[:size], rtol=rtol, atol=atol, err_msg=key
            )


def test_the_metadata_say_what_it_is(experiment, exported):
    metadata = json.loads((exported["hydra"] / "metadata.json").read_text())
    assert metadata["classes"] == list(NAMES)
    assert metadata["input"] == {"shape": ["batch", 8, 8, 1], "dtype": "uint8"}
    assert metadata["preparation"] == {"resize": "whole", "downsample": 1}
    assert metadata["outputs"]["probs"]["shape"] == ["batch", 10]
    assert metadata["temperature"] == TEMPERATURE
    rows = json.loads((experiment.run.workdir / "results.json").read_text())
    assert [metadata["metrics"]] == [row for row in rows if row["model"] == "hydra"]
    assert metadata["config"] == json.loads(
        (experiment.run.workdir / "config.json").read_text()
    )
    assert metadata["student"] == "hydra" and metadata["platforms"][1] == "cuda"
    teachers = json.loads((exported["teachers"] / "metadata.json").read_text())
    assert teachers["metrics"]["model"] == "DE-2" and "student" not in teachers


def test_the_configuration_has_names_in_place_of_paths():
    config = json.loads(digits.get_config().to_json())
    assert from_run.without_paths(config) == config  # which has no paths
    config["teachers_workdir"] = "/home/me/runs/digits"
    config["data"] |= {"path": "~/sets/mine.npz", "data_dir": "gs://bucket/tfds"}
    config["evaluation"] |= {
        "soft_labels": "../people.npy",
        "ood_sets": ["noise", "cifar10_corrupted/fog_3", "/home/me/photos"],
        "corruptions": ["fog", "./CIFAR-10-C"],
    }
    found = from_run.without_paths(config)
    assert found["teachers_workdir"] == "digits"
    assert found["data"] == config["data"] | {"path": "mine.npz", "data_dir": "tfds"}
    assert found["evaluation"] == config["evaluation"] | {
        "soft_labels": "people.npy",
        "ood_sets": ["noise", "cifar10_corrupted/fog_3", "photos"],
        "corruptions": ["fog", "CIFAR-10-C"],
    }


def test_the_splits_of_the_run_are_the_examples(experiment):
    opened = open_run.open_run(experiment.run.workdir)
    examples = from_run.load_examples(opened)
    dataset = experiment.data.dataset
    chosen = np.arange(100) * 256 // 100
    np.testing.assert_array_equal(examples.held_out.images, dataset.test.images[chosen])
    np.testing.assert_array_equal(examples.held_out.labels, dataset.test.labels[chosen])
    for found, wanted in zip(examples.validation, dataset.validation, strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(examples.train, dataset.train.images)
    for found, wanted in zip(examples.calibration, dataset.calibration, strict=True):
        np.testing.assert_array_equal(found, wanted)
    everything = from_run.load_examples(opened, held_out=None).held_out
    np.testing.assert_array_equal(everything.labels, dataset.test.labels)


def test_without_a_converter_onnx_is_told_what_it_needs(
    experiment, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    opened = open_run.open_run(experiment.run.workdir)
    with pytest.raises(InputError, match=r"pip install jax2onnx onnxruntime"):
        from_run.export_predictor(opened, "single", tmp_path / "out", targets=["onnx"])
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("name", ["teachers", *students.STUDENTS])
def test_other_runtimes_predict_the_same(name, experiment, exported, tmp_path):
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    wanted = ["onnx", "openvino"] if importlib.util.find_spec("openvino") else ["onnx"]
    opened = open_run.open_run(experiment.run.workdir)
    from_run.export_predictor(opened, name, tmp_path / "out", targets=wanted)
    predict, metadata = loader.load(exported[name])
    for target in wanted:
        classify = targets.load(target, tmp_path / "out")
        for size in (1, 7, 256):
            images = experiment.data.dataset.test.images[:size]
            found, reference = classify(images), predict(images)
            for key in metadata["outputs"]:
                np.testing.assert_allclose(
                    found[key], reference[key], rtol=1e-4, atol=1e-4, err_msg=key
                )


@pytest.mark.long
@pytest.mark.parametrize("networks", [1, 3])
def test_masks_of_teachers_with_dropout_are_exported(networks, tmp_path):
    experiment = create_evaluated(
        tmp_path / "run", ["single"], kind="dropout", num_members=3, networks=networks
    )
    from_run.export_predictor(
        open_run.open_run(experiment.run.workdir), "teachers", tmp_path / "out"
    )
    predict, metadata = loader.load(tmp_path / "out")
    images = experiment.data.dataset.test.images
    probs, scores = in_process(experiment, "teachers")
    assert metadata["metrics"]["model"] == "DE-3" and scores["pairwise_kl"].max() > 0.01
    np.testing.assert_allclose(
        predict(images)["probs"],
        metrics.apply_temperature(probs.astype(np.float64).mean(0), TEMPERATURE),
        atol=1e-5,
    )


def test_a_temperature_at_its_bound_is_named(experiment, tmp_path, capfd):
    workdir = shutil.copytree(experiment.run.workdir, tmp_path / "run")
    path = workdir / "results.json"
    before = path.read_bytes()
    opened = open_run.open_run(workdir)
    for at_bound in (False, True):
        rows = json.loads(before)
        for row in rows:
            row.pop("temperature_at_bound", None)
            row |= {"temperature_at_bound": True} if at_bound else {}
        storage.write_json(path, rows)
        with contextlib.suppress(InputError):  # the row is part of the artifact
            from_run.export_predictor(opened, "single", tmp_path / "out")
        words = "single: its temperature, 0.7, is a bound"
        assert (words in capfd.readouterr().err) == at_bound


def test_the_same_again_is_complete_and_nothing_is_overwritten(experiment, exported):
    opened = open_run.open_run(experiment.run.workdir)
    before = (exported["single"] / "model.jax").stat().st_mtime_ns
    assert not from_run.export_predictor(opened, "single", exported["single"])
    with pytest.raises(
        InputError,
        match=r"something else \(an artifact with another .*training.*; accepted: an",
    ):
        from_run.export_predictor(opened, "hydra", exported["single"])
    assert (exported["single"] / "model.jax").stat().st_mtime_ns == before
    assert sorted(p.name for p in exported["single"].iterdir()) == [
        "load.py",
        "metadata.json",
        "model.jax",
    ]
    assert not list(exported["single"].parent.glob(".*"))


def test_what_cannot_be_exported_is_told(experiment, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"there is no .*config.json; accepted: the"):
        open_run.open_run(tmp_path)
    workdir = shutil.copytree(experiment.run.workdir, tmp_path / "run")
    opened = open_run.open_run(workdir)
    with pytest.raises(
        InputError, match="student='sngle' does not exist in this run; acc"
    ):
        from_run.export_predictor(opened, "sngle", out)
    index = workdir / "predictions/made_from.json"
    made_from = storage.read_json(index)
    storage.write_json(index, {**made_from, "hydra": "another training"})
    with pytest.raises(InputError, match="hydra is not evaluated since it was trained"):
        from_run.export_predictor(opened, "hydra", out)
    storage.write_json(index, made_from)
    # The evaluation of another training ended before it wrote the rows.
    results = workdir / "results.json"
    rows = storage.read_json(results)
    changed = [row | {"nll": row["nll"] + 0.01} for row in rows]
    storage.write_json(results, changed)
    with pytest.raises(InputError, match="hydra is not evaluated since it was trained"):
        from_run.export_predictor(opened, "hydra", out)
    storage.write_json(results, rows)
    (workdir / "students/hydra/complete.json").unlink()
    with pytest.raises(InputError, match="student='hydra' is not trained yet"):
        from_run.export_predictor(opened, "hydra", out)
    assert not out.exists()
